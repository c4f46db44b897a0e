"""Boosted trees: bins and side products here, a folder for each `trees.reveal`."""
