"""One organisation's side: the only code that touches private data and its disk."""
