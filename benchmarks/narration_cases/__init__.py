"""The ways of writing captions that benchmarks/narration.py compares, and the narrator that writes them."""
