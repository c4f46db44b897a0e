"""Trees of which the bank learns which side of a partner's split each row takes."""
