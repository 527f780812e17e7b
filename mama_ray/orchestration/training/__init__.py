"""The training job of the dual encoder."""
