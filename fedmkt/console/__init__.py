"""A web console for the people of one party, on this machine only: what they may see and do by their role."""
