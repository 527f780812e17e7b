"""Dual encoders in Hugging Face's layout: images frame by frame with a pooling over time, or whole videos."""
