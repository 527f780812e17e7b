"""What a narrator in training writes of val clips, gathered from all ranks and scored against what people wrote."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pydantic
import torch

from mama_ray.evaluation.caption_metrics.scores import CaptionScores, Subset, score_captions
from mama_ray.objectives.gather import gather_plain

RESULT_NAME = "captions.json"
"""Beside the run's page."""

_FORM = pydantic.TypeAdapter(CaptionScores)


@dataclass(frozen=True)
class Captioned:
    """A clip's own caption by the narrator; `caption` None where the clip could not be read."""

    row: int
    caption: str | None


def gather_captions(own: Sequence[Captioned], device: torch.device) -> list[Captioned]:
    """Return the captions of all ranks, alike on every rank, in the order of rows; every rank must call it.

    As UTF-8 bytes in a tensor: nothing is pickled.
    """
    content = json.dumps([[one.row, one.caption] for one in own]).encode()
    mine = torch.frombuffer(bytearray(content), dtype=torch.uint8).to(device)
    lengths = gather_plain(torch.tensor([len(mine)], device=device)).tolist()
    padded = torch.zeros(max(lengths), dtype=torch.uint8, device=device)
    padded[: len(mine)] = mine
    whole = gather_plain(padded[None]).cpu().numpy()
    found = [
        Captioned(row, caption)
        for rank, length in enumerate(lengths)
        for row, caption in json.loads(whole[rank, :length].tobytes())
    ]
    return sorted(found, key=lambda one: one.row)


def score_captioned(
    captioned: Sequence[Captioned], table: pa.Table, *, sources: frozenset[str] | None, every: int | None
) -> CaptionScores:
    """Score captions of clips of the val split's table against the clips' own of these sources (None: of any)."""
    read = [one for one in captioned if one.caption is not None]
    records = table.select(["clip_id", "captions"]).take(pa.array([one.row for one in read], pa.int64())).to_pylist()
    references = [
        [caption["text"] for caption in record["captions"] if sources is None or caption["source"] in sources]
        for record in records
    ]
    ids = [record["clip_id"] for record in records]
    num_unread = len(captioned) - len(read)
    subset = Subset.of(ids, split="val", num_of=len(table), every=every, num_unreadable=num_unread)
    return score_captions([one.caption or "" for one in read], references, subset)


def as_metrics(scores: CaptionScores) -> dict[str, float]:
    """Return the scores under the names of records; {} where nothing was scored."""
    if not scores.scores:
        return {}
    named = {f"val/{name}": value for name, value in scores.scores.items()}
    return named | {"val/num_captions_scored": scores.subset.num_clips}


def scores_from_record(record: Any) -> CaptionScores | None:
    """Return the scores of a checkpoint's train_state.json; None where it has none, or those of another version."""
    try:
        return _FORM.validate_python(record)
    except pydantic.ValidationError:
        return None


def as_record(scores: CaptionScores) -> dict[str, Any]:
    """Return the scores as JSON has them."""
    return asdict(scores)
