"""Real frames, the f-map of each machine, and the view of memory that devices have."""
