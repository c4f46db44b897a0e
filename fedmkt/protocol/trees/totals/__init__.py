"""Trees of which nobody learns sides: scores, gradients and membership shared, totals opened to the bank."""
