"""Kinds of classes, and the names of class labels among a batch's targets, each followed by its kind."""

KINDS = ("verb", "noun", "action")
ACTION = "action"
MAX_CLASSES = 1 << 16  # of a kind: a set is written out as so many numbers

OF_VIDEO = "video_classes/"
"""The class set of each clip: (batch, classes) of uint8, 1 for a class in the set."""
OF_TEXT = "text_classes/"
"""The class set of the text that the clip is paired with, likewise."""
CLASS = "class/"
"""The class that a classifier learns: (batch,) of int64, -1 where the clip has none of the kind."""
IS_GENERATED = "is_generated"
"""Whether a clip's text was generated: (batch,) of bool."""
HAS_GENERATED = "has_generated"
"""Whether a clip has a generated caption beside its own text: (batch,) of bool."""
