"""Reads the facts back out of a caption, by the words alone: a check that is independent of how captions are made."""

from mama_ray.data.synthetic.words import COLOUR_WORDS, MOTION_WORDS, SHAPE_WORDS, SIZE_WORDS

_FINITE = {motion: tuple(pair[0] for pair in forms) for motion, forms in MOTION_WORDS.items()}
_PARTICIPLES = {motion: tuple(pair[1] for pair in forms) for motion, forms in MOTION_WORDS.items()}


def read_facts(caption: str) -> list[dict[str, str]]:
    """Return the stated facts of each object in the order in which the objects act, as far as words tell."""
    reverses = " after " in caption
    parts = _split(caption)
    things = [_read_thing(part) for part in parts]
    return things[::-1] if reverses else things


def _split(caption: str) -> list[str]:
    for joint in (" and then ", " then ", " before ", " after ", " followed by "):
        if joint in caption:
            return caption.split(joint)
    if caption.startswith("after "):
        # "after a small red circle rises a large blue star falls": the second article begins the second part.
        words = caption.split()
        articles = [place for place, word in enumerate(words) if word in ("a", "an")]
        return [" ".join(words[1 : articles[1]]), " ".join(words[articles[1] :])]
    return caption.split(" and ")


def _read_thing(text: str) -> dict[str, str]:
    motions = {motion: _FINITE[motion] + _PARTICIPLES[motion] for motion in MOTION_WORDS}
    tables = {"shape": SHAPE_WORDS, "colour": COLOUR_WORDS, "size": SIZE_WORDS, "motion": motions}
    found = {}
    for name, table in tables.items():
        values = {value for value, words in table.items() for word in words if f" {word} " in f" {text} "}
        assert len(values) <= 1, f"{text!r} gives {name} as {values}"
        if values:
            found[name] = values.pop()
    return found
