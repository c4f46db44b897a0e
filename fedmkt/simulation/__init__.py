"""A synthetic world with a known joint signal, and a whole job on one machine."""
