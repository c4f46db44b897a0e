"""What a step can reveal, and what the reader can compute from it."""
