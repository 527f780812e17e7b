"""The training loop, its state and its checkpoints; none of it has heard of Ray."""
