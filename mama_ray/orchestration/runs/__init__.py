"""What every trainer on Ray Train shares: run folder, workers, batches, checkpoints."""
