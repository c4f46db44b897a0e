"""Arithmetic on secrets: fixed point modulo 2^64, shared values, products, rounding, sigmoid."""
