"""Rephrasing human captions: LaViLa's REPHRASER by a T5, or by an instruct model."""
