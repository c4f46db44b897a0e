"""What goes with a release: the lock, the list of licences, the wheel that can be built again."""
