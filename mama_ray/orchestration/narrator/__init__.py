"""The training job of the narrator."""
