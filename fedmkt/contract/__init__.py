"""The contract that all sides sign: its words and terms, its rules, its bytes, its signatures, its file."""
