"""Experiments with the system: the demo, the controlled study, the scaling model. Nothing below imports them."""
