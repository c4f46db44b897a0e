"""A scorecard's bins: their totals, which only the bank gets, and their weight of evidence."""
