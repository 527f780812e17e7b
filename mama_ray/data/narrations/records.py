"""The records of LaViLa's pickles as rows of annotations.

Human and rephrased ones are (video_uid, start_s, end_s, text), generated ones (video_uid, start_s, end_s, texts,
scores); a text may be a list in both. They are told apart by their length, as the release does. The score is no
log-probability but a perplexity (without a target exp of the mean entropy); it is not carried on, only looked at.
"""

import math
from collections import Counter
from typing import Any

from mama_ray.data.clip import CaptionSource
from mama_ray.data.narrations.rows import narration_row


def row_of_record(
    record: Any, *, clamped: Counter, source: CaptionSource = "human", max_score: float | None = None
) -> tuple[dict[str, Any], int]:
    """Return the row of a record, and how many of its texts have a score above `max_score` and were left out.

    `source` is that of records without scores. Raises ValueError, naming what is wrong, for what is no record, or has
    no text left.
    """
    if not isinstance(record, tuple | list) or len(record) not in (4, 5):
        kind = type(record).__name__
        of = f" of {len(record)}" if isinstance(record, tuple | list) else ""
        raise ValueError(f"record: got a {kind}{of}, wanted a tuple of 4 or 5")
    texts = record[3] if isinstance(record[3], list | tuple) else [record[3]]
    num_left_out = 0
    if len(record) == 5:
        source = "generated"
        scores = _scores(record[4], len(texts))
        if max_score is not None:
            kept = [text for text, score in zip(texts, scores, strict=True) if score <= max_score]
            num_left_out = len(texts) - len(kept)
            texts = kept
            if not texts:
                raise ValueError(f"score: got none of {num_left_out} texts up to {max_score:g}")
    return narration_row(*record[:3], list(texts), source, clamped), num_left_out


def _scores(value: Any, num_texts: int) -> list[float]:
    scores = value if isinstance(value, list | tuple) else [value]
    if len(scores) != num_texts:
        raise ValueError(f"scores: got {len(scores)} of {num_texts} texts, wanted one each")
    for score in scores:
        if isinstance(score, bool) or not isinstance(score, int | float) or math.isnan(score):
            raise ValueError(
                f"score: got {type(score).__name__ if not isinstance(score, float) else score}, wanted a number"
            )
    return list(scores)
