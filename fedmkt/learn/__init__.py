"""Ordinary mathematics on numpy arrays; also the oracle for the protocols."""
