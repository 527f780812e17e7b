"""How well a narrator in training does on the val split: the loss of its captions, and what its own captions get right.

Every rank takes a share of the clips and keeps its pictures as far as they fit. Facts can only be checked where the
corpus recorded the truth, as the synthetic one does.
"""

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray
import torch

from mama_ray.captioning.narrator.loss import IGNORED, CaptionLoss
from mama_ray.data.synthetic.read_back import FACT_NAMES, count_named_right
from mama_ray.data.synthetic.vocabulary import Thing
from mama_ray.objectives.gather import gather_plain
from mama_ray.orchestration.narrator.data import PictureReader
from mama_ray.orchestration.narrator.state import NarratorState
from mama_ray.orchestration.runs.kept_chunks import KeptChunks

_KEPT_BYTES = 256 * 1024**2


@dataclass(frozen=True)
class _Chunk:
    pictures: torch.Tensor
    labels: torch.Tensor
    things: list[Thing | None]


class NarratorValidation:
    """Validates one rank's share of at most `num_clips` clips of the val split, evenly spread over it."""

    def __init__(self, reader: PictureReader, *, num_clips: int, chunk_size: int, rank: int, world_size: int) -> None:
        self._table = ray.get(reader.data.val)
        self._assembler = reader.assembler(reader.data.val)
        self._max_tokens = reader.config.max_caption_tokens
        count = min(num_clips, len(self._table))
        rows = np.linspace(0, len(self._table) - 1, count).round().astype(np.int64) if count else np.empty(0, np.int64)
        mine = rows[rank::world_size]
        self._chunks = [mine[start : start + chunk_size] for start in range(0, len(mine), chunk_size)]
        self._kept = KeptChunks(self._decode, lambda chunk: chunk.pictures.nbytes, max_bytes=_KEPT_BYTES)
        self.is_empty = count == 0

    @torch.no_grad()
    def metrics(self, state: NarratorState) -> dict[str, float]:
        """Return val/caption_loss and val/<fact>_right, alike on every rank; {} without a val split.

        Every rank must call it.
        """
        if self.is_empty:
            return {}
        model = state.narrator.model
        loss = CaptionLoss.of(state.loss)
        device = loss.prompt_ids.device
        was_training = model.training
        model.eval()
        # The sums over clips: loss, tokens, clips whose truth is known, and those named right for each fact.
        sums = torch.zeros(3 + len(FACT_NAMES), dtype=torch.float64, device=device)
        for number in range(len(self._chunks)):
            chunk = self._kept[number]
            pictures, labels = chunk.pictures.to(device), chunk.labels.to(device)
            with state.autocast():
                sums[0] += loss(pictures, labels)
                sums[1] += (labels != IGNORED).sum()
                known = [place for place, thing in enumerate(chunk.things) if thing is not None]
                if known:
                    written = loss.narrate(pictures[known], max_tokens=self._max_tokens)
                    captions = state.narrator.processor.batch_decode(written, skip_special_tokens=True)
                    right = count_named_right(captions, [thing for thing in chunk.things if thing is not None])
                    sums[2:] += torch.tensor([len(known), *right.values()], device=device)
        model.train(was_training)
        total = gather_plain(sums[None]).sum(dim=0).tolist()
        metrics = {"val/caption_loss": total[0] / max(total[1], 1.0)}
        if total[2]:
            metrics |= {
                f"val/{name}_right": 100 * count / total[2] for name, count in zip(FACT_NAMES, total[3:], strict=True)
            }
        return metrics

    def _decode(self, number: int) -> _Chunk:
        rows = self._chunks[number]
        arrays = self._assembler.assemble(rows)
        valid = torch.from_numpy(arrays["valid"])
        return _Chunk(
            torch.from_numpy(arrays["pictures"]),
            torch.from_numpy(arrays["labels"]).masked_fill(~valid[:, None], IGNORED),
            [
                _recorded_thing(truth) if is_valid else None
                for truth, is_valid in zip(_truths(self._table, rows), valid.tolist(), strict=True)
            ],
        )


def _truths(table: pa.Table, rows: np.ndarray) -> list[str | None]:
    return table["truth"].take(pa.array(rows)).to_pylist()


def _recorded_thing(truth: str | None) -> Thing | None:
    """Return the one object that a clip is recorded to show; None for clips of other makers, or of two objects."""
    objects = json.loads(truth)["facts"]["objects"] if truth else []
    return Thing(**objects[0]) if len(objects) == 1 else None
