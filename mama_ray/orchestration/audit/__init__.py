"""The audit job: what a run says of its own data."""
