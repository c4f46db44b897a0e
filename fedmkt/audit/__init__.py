"""Records, signed heads and their offline verification."""
