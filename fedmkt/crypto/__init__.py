"""Bytes and arrays in, bytes and arrays out: group, masks, envelopes, signatures, hash tree."""
