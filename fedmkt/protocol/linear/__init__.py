"""Models with a linear predictor, trained and scored on shares: GLM, additive, what a scorecard is fitted by."""
