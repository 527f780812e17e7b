"""Scoring files of predictions: those of other models, and those that an evaluation wrote."""
