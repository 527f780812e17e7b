"""The audit itself: which caption of each clip is judged, how it scores, and what should become of it."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import pyarrow as pa

from mama_ray.auditing.exclusions import Exclusion, caption_id
from mama_ray.auditing.fit import Fit, compare_captions
from mama_ray.auditing.separation import lowest
from mama_ray.auditing.sums import RecordMeans
from mama_ray.auditing.table import AUDIT_SCHEMA, EXCLUDE, KEEP, REWRITE

ScoreName = Literal["weight", "loss", "cosine", "fit"]


@dataclass(frozen=True)
class AuditedClips:
    """What is known of the clips before they are judged.

    Attributes:
        clips: rows of the index, with clip_id, sha256, topic and captions, each with at least one.
        offsets: where each clip's captions begin among all, and where the last one's end.
        means: of the record.
        videos: features of the clips by the audit's encoder, of unit norm.
        texts: features of all captions.
        unreadable: of each clip, whether its video could not be read.
    """

    clips: pa.Table
    offsets: np.ndarray
    means: RecordMeans
    videos: np.ndarray
    texts: np.ndarray
    unreadable: np.ndarray


def score_captions(found: AuditedClips, by: ScoreName) -> np.ndarray:
    """Return the score of every caption, low for a suspect, NaN where nothing is known of it."""
    if by == "fit":
        clip_of = np.repeat(np.arange(len(found.clips)), np.diff(found.offsets))
        cosine = np.einsum("td,td->t", found.texts, found.videos[clip_of])
        recorded = np.where(found.means.count > 0, cosine, np.nan)
        return np.where(found.unreadable[clip_of], np.nan, recorded)
    values = found.means.by_caption[by]
    return -values if by == "loss" else values


def judge_clips(found: AuditedClips, *, by: ScoreName, share: float, num_compared: int) -> pa.Table:
    """Return the audit's table: the `share` of the judged captions with the lowest scores is to go, and is rewritten
    where the clip has a caption of another source that fits better."""
    scores = score_captions(found, by)
    judged = lowest_of_each(scores, found.offsets)
    fit = compare_captions(found.videos, found.texts, found.offsets, judged, num_compared=num_compared)
    own = scores[judged]
    num_known = int(np.isfinite(own).sum())
    suspects = np.zeros(len(own), bool)
    suspects[lowest(own, min(num_known, round(share * num_known)))] = True
    captions = found.clips["captions"].combine_chunks()
    flat = captions.flatten()
    texts, sources = flat.field("text").to_pylist(), flat.field("source").to_pylist()
    clip_ids = found.clips["clip_id"].to_pylist()
    clip_of = np.repeat(np.arange(len(clip_ids)), np.diff(found.offsets))
    rows = []
    for row, place in enumerate(judged.tolist()):
        better = None if found.unreadable[row] else better_caption(row, place, found.offsets, fit, sources)
        verdict = KEEP if not suspects[row] else EXCLUDE if better is None else REWRITE
        others = [
            {"clip_id": clip_ids[clip_of[other]], "text": texts[other], "similarity": cosine}
            for other, cosine in zip(fit.best_others[row].tolist(), fit.best_cosine[row].tolist(), strict=True)
            if other >= 0 and not found.unreadable[row]
        ]
        rows.append(
            {
                "caption": texts[place],
                "caption_id": caption_id(texts[place]),
                "source": sources[place],
                "others": others,
                "better_text": None if better is None else texts[better],
                "better_source": None if better is None else sources[better],
                "better_fit": None if better is None else float(fit.cosine[better]),
                "verdict": verdict,
            }
        )
    return _table(found, judged, own, fit, rows)


def lowest_of_each(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the place of the lowest score of each clip's captions; the first one where none is known."""
    filled = np.where(np.isfinite(scores), scores, np.inf)
    return np.array([start + int(np.argmin(filled[start:stop])) for start, stop in pairwise(offsets.tolist())])


def better_caption(row: int, judged: int, offsets: np.ndarray, fit: Fit, sources: list[str]) -> int | None:
    """Return the place of the clip's best caption of another source, if that fits better than the judged one."""
    others = [place for place in range(offsets[row], offsets[row + 1]) if sources[place] != sources[judged]]
    best = max(others, key=lambda place: (fit.cosine[place], -place), default=None)
    return best if best is not None and fit.cosine[best] > fit.cosine[judged] else None


def exclusions_of(table: pa.Table, by: ScoreName) -> list[Exclusion]:
    """Return the captions that the audit would leave out, the most suspect first."""
    suspects = table.filter(pa.array([verdict != KEEP for verdict in table["verdict"].to_pylist()])).sort_by("score")
    return [
        Exclusion(row["clip_id"], row["caption_id"], f"{by} {row[by]:.3f}, {row['verdict']}", row["caption"])
        for row in suspects.select(["clip_id", "caption_id", by, "verdict", "caption"]).to_pylist()
    ]


def _table(found: AuditedClips, judged: np.ndarray, scores: np.ndarray, fit: Fit, rows: list[dict]) -> pa.Table:
    means, count = found.means, len(judged)
    numbers = {
        name: pa.array(values[judged], pa.float32(), from_pandas=True) for name, values in means.by_caption.items()
    }
    columns = {
        "clip_id": found.clips["clip_id"],
        "video_sha256": found.clips["sha256"],
        "topic": found.clips["topic"],
        "num_captions": np.diff(found.offsets),
        "num_records": means.count[judged],
        **numbers,
        "epochs": [means.epochs] * count,
        **{
            f"{name}_by_epoch": _lists(means.by_epoch[name].T) if means.epochs else [[]] * count
            for name in ("weight", "loss")
        },
        "fit": pa.array(fit.cosine[judged], pa.float32(), mask=found.unreadable),
        "share_better": pa.array(fit.share_better, pa.float32(), mask=found.unreadable),
        "score": pa.array(scores, pa.float32(), from_pandas=True),
        **{name: [row[name] for row in rows] for name in rows[0]},
    }
    return pa.table([_column(columns[field.name], field.type) for field in AUDIT_SCHEMA], schema=AUDIT_SCHEMA)


def _lists(values: np.ndarray) -> pa.Array:
    """Return the rows as lists, null for NaN: JSON has no such number."""
    return pa.array(list(values), pa.list_(pa.float32()), from_pandas=True)


def _column(values: object, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    return values.cast(kind) if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, kind)
