"""Trees of which no total is opened either: gains are compared on shares."""
