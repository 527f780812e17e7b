"""What a weight net may see of a training clip beside its loss: a number or a category each, filled from memory."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from mama_ray.errors import unknown_name
from mama_ray.experiments.study.clip_arrays import ClipArrays, encode_clips
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.weighting.settings import WeightingConfig

# Where a caption came from: what is misread from a second source, what else names a label from a third.
SOURCES = ("plain", "labelled", "second")


def weight_columns(
    config: WeightingConfig, clips: ClipArrays, model: DualEncoder
) -> Float32[np.ndarray, "clips columns"] | None:
    """Return the columns that the weighting asks for, in its order; None where it asks for none.

    pretrained_cosine: of the clip and its own caption, by `model` as it is. agreement: the share of the words of the
    clip's own caption and the generated one that both have; NaN for a clip without one. source and topic: the
    value's place in the weighting's categories, NaN for another. UserError for an unknown name.
    """
    if not config.columns:
        return None
    known = {
        "pretrained_cosine": lambda: _cosines(clips, model),
        "agreement": lambda: _agreements(clips),
        "source": lambda: _places(config, "source", [source_of(clip.truth) for clip in clips.clips]),
        "topic": lambda: _places(config, "topic", clips.topics.tolist()),
    }
    for name in config.columns:
        if name not in known:
            raise unknown_name("input of a weight net in the study", name, known)
    return np.stack([known[name]() for name in config.columns], axis=1).astype(np.float32)


def source_of(truth: Mapping[str, Any]) -> str:
    """Return which of SOURCES a clip's caption came from, by the clip's `truth`."""
    if truth["kind"] == "misread":
        return "second"
    return "labelled" if "label" in truth else "plain"


def _cosines(clips: ClipArrays, model: DualEncoder) -> np.ndarray:
    was_training = model.training
    model.eval()
    videos, texts = encode_clips(model, clips)
    model.train(was_training)
    return (videos * texts).sum(axis=1)


def _agreements(clips: ClipArrays) -> np.ndarray:
    found = np.full(len(clips), np.nan)
    for place, generated in clips.generated.items():
        one, two = (set(ids[ids > 0].tolist()) for ids in (clips.token_ids[place], generated))
        found[place] = len(one & two) / len(one | two)
    return found


def _places(config: WeightingConfig, name: str, values: Sequence[str]) -> np.ndarray:
    places = {value: place for place, value in enumerate(config.categories[name])}
    return np.array([places.get(value, np.nan) for value in values])
