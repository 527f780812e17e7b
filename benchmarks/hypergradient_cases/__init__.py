"""What `benchmarks/hypergradient_value.py` compares, and one of its runs."""
