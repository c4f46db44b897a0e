"""One file, one protocol: messages, steps and the script."""
