"""A few text queries with the clips that were ranked first, for a person to look at."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from mama_ray.data.captions import caption_for_evaluation
from mama_ray.evaluation.protocol import BenchmarkConfig, RetrievedExample
from mama_ray.orchestration.evaluation.rank import Features, queries_of, top_clips
from mama_ray.orchestration.evaluation.split import EvaluatedSplit

_NUM_RETRIEVED = 5


def pick_examples(
    benchmark: BenchmarkConfig,
    split: EvaluatedSplit,
    features: Features,
    ranks: Float64[np.ndarray, " queries"],
    count: int,
) -> tuple[RetrievedExample, ...]:
    """Return queries spread evenly over the split, so that good and bad ones are shown as they come.

    ranks: of t2v without dual softmax, in the order of `queries_of`.
    """
    texts = np.flatnonzero(~np.isin(features.text_codes, list(features.errors)))
    count = min(count, len(texts))
    if not count:
        return ()
    positions = texts[((np.arange(count) + 0.5) * len(texts) / count).astype(int)]
    rows = features.text_codes[positions]
    found = top_clips(features, positions, _NUM_RETRIEVED)
    right, retrieved = split.pick(rows), split.pick(found.reshape(-1))
    names = np.array([clip["clip_id"] for clip in retrieved]).reshape(found.shape)
    asked = queries_of(features, benchmark)["t2v"]
    examples = []
    for position, row, clip, first in zip(positions, rows, right, names, strict=True):
        number = int(position - np.searchsorted(features.text_codes, row))
        examples.append(
            RetrievedExample(
                text=_text(clip["captions"], benchmark, number),
                clip_id=clip["clip_id"],
                rank=float(ranks[np.searchsorted(asked, row) + number]),
                retrieved=tuple(first.tolist()),
            )
        )
    return tuple(examples)


def _text(captions: Sequence[dict], benchmark: BenchmarkConfig, number: int) -> str:
    texts = caption_for_evaluation(captions, benchmark.caption_mode)
    return texts if isinstance(texts, str) else texts[number]
