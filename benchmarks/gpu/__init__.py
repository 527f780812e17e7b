"""What a machine with a GPU must do right, and what it reaches; docs/gpu.md explains it."""
