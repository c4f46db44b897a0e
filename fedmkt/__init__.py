"""Joint marketing response models between a bank and its partners, without showing each other data."""

__version__ = "0.1.0"
