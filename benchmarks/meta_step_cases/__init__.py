"""What `benchmarks/meta_step.py` compares."""
