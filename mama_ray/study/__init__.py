"""The controlled study: cells (one training run each) on a corpus whose faults are known, and their plan."""
