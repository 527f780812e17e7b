"""A clip's captions: which texts count, and which is used: drawn from a mix of sources in training, fixed by the
protocol in evaluation.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from mama_ray.data.clip import CAPTION_SOURCES, Caption
from mama_ray.errors import UserError, unknown_name

CaptionMode = Literal["single", "paragraph", "multi"]
# What programs write where there is nothing (pandas, databases, spreadsheets), in lower case.
_NOTHING = frozenset(("nan", "-nan", "none", "null", "n/a", "#n/a", "na", "#na", "<na>"))


def check_probabilities(probabilities: Mapping[str, float] | None) -> None:
    """Raise ValueError for mixing probabilities of unknown sources, negative ones and ones that draw nothing."""
    if probabilities is None:
        return
    for source, share in probabilities.items():
        if source not in CAPTION_SOURCES:
            raise unknown_name("caption source", source, CAPTION_SOURCES)
        if share < 0:
            raise ValueError(f"captions: got {share:g} for {source}, wanted 0 or more")
    if not any(probabilities.values()):
        raise ValueError(f"captions: got {dict(probabilities)}, wanted more than 0 for at least one source")


def is_nothing(value: Any) -> bool:
    """Tell whether a cell or field says that nothing is known: None, NaN, a blank, or a text such as "nan" or "N/A"."""
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, str):
        text = value.strip()
        is_blank = not any(character.isprintable() for character in text)  # zero-width spaces and the like
        return is_blank or text.lower() in _NOTHING
    return value is None


def parse_captions(items: list, source: Any) -> tuple[Caption, ...]:
    """Make captions of texts, or of objects of text and source; what stands for nothing is left out.

    Raises ValueError for what is neither.
    """
    found = []
    for item in items:
        text, own_source = (item.get("text"), item.get("source")) if isinstance(item, dict) else (item, None)
        says_nothing = is_nothing(text) and not (isinstance(item, dict) and "text" not in item)
        if not says_nothing:
            found.append(Caption(text, own_source or source))
    return tuple(found)


def choose_caption(
    captions: Sequence[Mapping[str, str]], *, probabilities: Mapping[str, float] | None, rng: np.random.Generator
) -> str:
    """Draw one caption text of a clip, as `pick_caption` does."""
    return pick_caption(captions, probabilities=probabilities, rng=rng)["text"]


def pick_caption(
    captions: Sequence[Mapping[str, str]], *, probabilities: Mapping[str, float] | None, rng: np.random.Generator
) -> Mapping[str, str]:
    """Draw one caption of a clip.

    Args:
        captions: each with `text` and `source`.
        probabilities: of the sources, renormalised over those that the clip has, uniform within a source. None draws
            uniformly over the captions.

    Raises UserError when there is no caption, or none of a source with a positive probability.
    """
    if not captions:
        raise UserError("a clip has no caption to draw", got=0, wanted="at least 1")
    if probabilities is None:
        return captions[int(rng.integers(len(captions)))]
    bad = {source: p for source, p in probabilities.items() if not (math.isfinite(p) and p >= 0)}
    if bad:
        raise UserError("caption source probabilities", got=bad, wanted="finite numbers from 0 on")
    by_source: dict[str, list[Mapping[str, str]]] = {}
    for caption in captions:
        by_source.setdefault(caption["source"], []).append(caption)
    # Sorted, so that neither the clip's nor the config's order of sources changes the draw.
    sources = sorted(source for source in by_source if probabilities.get(source, 0) > 0)
    if not sources:
        raise UserError(
            "a clip has no caption of a source that is drawn from",
            got=sorted(by_source),
            wanted=sorted(source for source, p in probabilities.items() if p > 0),
            remedy="give one of its sources a positive probability, or filter such clips",
        )
    weights = np.array([probabilities[source] for source in sources], dtype=np.float64)
    own = by_source[sources[int(rng.choice(len(sources), p=weights / weights.sum()))]]
    return own[int(rng.integers(len(own)))]


def split_generated(
    captions: Sequence[Mapping[str, str]],
) -> tuple[Sequence[Mapping[str, str]], Sequence[Mapping[str, str]]]:
    """Return a clip's own captions and the generated ones beside them: none of a clip that has no others."""
    generated = [caption for caption in captions if caption["source"] == "generated"]
    own = [caption for caption in captions if caption["source"] != "generated"]
    return (own, generated) if own else (generated, [])


def caption_for_evaluation(captions: Sequence[Mapping[str, str]], mode: CaptionMode) -> str | list[str]:
    """Return the text or texts a benchmark scores, in file order.

    single: the one caption, more or fewer are an error (a list at test time must not become a random draw);
    paragraph: all sentences stripped and joined by one space (DiDeMo, ActivityNet); multi: the list of all texts.
    """
    texts = [caption["text"] for caption in captions]
    if mode == "single":
        if len(texts) != 1:
            raise UserError(
                "caption mode single",
                got=f"{len(texts)} captions",
                wanted="exactly 1 caption per clip",
                remedy="use paragraph or multi, or keep one caption per clip",
            )
        return texts[0]
    if not texts:
        raise UserError(f"caption mode {mode}", got="0 captions", wanted="at least 1 caption per clip")
    if mode == "paragraph":
        return " ".join(stripped for text in texts if (stripped := text.strip()))
    if mode == "multi":
        return texts
    raise UserError("caption mode", got=mode, wanted="single, paragraph or multi")
