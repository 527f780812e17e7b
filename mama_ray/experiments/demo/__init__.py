"""The demo: the method at work on one noisy corpus."""
