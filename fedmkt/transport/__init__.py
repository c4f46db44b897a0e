"""Ways to deliver a call: memory, Flower."""
