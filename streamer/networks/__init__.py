"""Neural networks, the backends that run them, and their weights."""
