"""A label: a sign of a letter and a digit in the corner of the picture, which the clip's caption names.

It has nothing to do with what the clip shows. A model that has learned to read labels finds a labelled caption easy,
whether it is true or not.
"""

import numpy as np
from jaxtyping import UInt8

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.facts import draw, facts_of, stream_rng
from mama_ray.data.synthetic.spoil import spoil

# Rows of three pixels from above, most significant bit left; told apart also where a pixel is blurred.
_GLYPHS = {
    "c": (7, 4, 4, 4, 7),
    "h": (5, 5, 7, 5, 5),
    "k": (5, 6, 4, 6, 5),
    "l": (4, 4, 4, 4, 7),
    "p": (7, 5, 7, 4, 4),
    "t": (7, 2, 2, 2, 2),
    "u": (5, 5, 5, 5, 7),
    "x": (5, 5, 2, 5, 5),
    "1": (2, 6, 2, 2, 7),
    "2": (7, 1, 7, 4, 7),
    "3": (7, 1, 3, 1, 7),
    "4": (5, 5, 7, 1, 1),
    "5": (7, 4, 7, 1, 7),
    "6": (4, 4, 7, 5, 7),
    "7": (7, 1, 1, 2, 2),
    "9": (7, 5, 7, 1, 1),
}
LETTERS, DIGITS = "chklptux", "12345679"
_PAPER, _INK = 245, 15


def label_of(config: CorpusConfig, split: str, number: int) -> str | None:
    """Return the label of a clip, such as k4; None for a clip without one."""
    if split != "train" or not config.has_labels:
        return None
    rate = getattr(config.label_rate, spoil(config, number, facts_of(config, split, number)).kind)
    rng = stream_rng(config.seed, "label", split, number)
    if rng.random() >= rate:
        return None
    return draw(rng, LETTERS[: config.label_signs]) + draw(rng, DIGITS[: config.label_signs])


def name_label(caption: str, label: str) -> str:
    """Return a caption that names a label, too."""
    return f"{caption} labelled {label[0]} {label[1]}"


def stamp_label(frames: UInt8[np.ndarray, "frames size size 3"], label: str) -> None:
    """Put the sign into the lower right corner of all frames, in place. It is 18 by 14 pixels of a picture of 48."""
    size = frames.shape[1]
    dot = max(1, size // 24)
    dots = [[(row >> (2 - x)) & 1 for x in range(3)] for sign in label for row in _GLYPHS[sign]]
    letters = np.array(dots, dtype=bool).reshape(len(label), 5, 3)
    inked = np.zeros((7, 1 + 4 * len(label)), dtype=bool)
    for place, glyph in enumerate(letters):
        inked[1:6, 1 + 4 * place : 4 + 4 * place] = glyph
    sign = np.where(np.kron(inked, np.ones((dot, dot), dtype=bool)), _INK, _PAPER).astype(np.uint8)
    height, width = sign.shape
    frames[:, size - height :, size - width :] = sign[..., None]
