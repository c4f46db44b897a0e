"""Who is common, how many are, and which of them train: intersection, alignment, split."""
