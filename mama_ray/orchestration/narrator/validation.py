"""How well a narrator in training does on the val split: the loss of captions, how near its own greedy ones come to
what people wrote, and what they get right.

Every rank takes a share of the clips and keeps its pictures as far as they fit. Facts can only be checked where the
corpus recorded the truth, as the synthetic one does.
"""

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray
import torch

from mama_ray.captioning.narrator.kind import IGNORED
from mama_ray.data.synthetic.read_back import FACT_NAMES, count_named_right
from mama_ray.data.synthetic.vocabulary import Thing
from mama_ray.evaluation.caption_metrics.scores import CaptionScores
from mama_ray.objectives.gather import gather_plain
from mama_ray.orchestration.narrator.captioned import Captioned, as_metrics, gather_captions, score_captioned
from mama_ray.orchestration.narrator.data import NarratorData, SampleReader
from mama_ray.orchestration.narrator.job import NarratorJob
from mama_ray.orchestration.narrator.state import NarratorState
from mama_ray.orchestration.runs.kept_chunks import KeptChunks

_KEPT_BYTES = 256 * 1024**2


@dataclass(frozen=True)
class _Chunk:
    pictures: torch.Tensor
    labels: torch.Tensor
    valid: list[bool]
    things: list[Thing | None]


def choose_val_rows(job: NarratorJob, data: NarratorData) -> np.ndarray:
    """Return the rows of the val split that validation takes: every N-th, or so many evenly spread over it."""
    num_val = data.summary["num_clips"]["val"]
    if job.val_every is not None:
        return np.arange(0, num_val, job.val_every, dtype=np.int64)
    count = min(job.num_val_clips, num_val)
    return np.linspace(0, num_val - 1, count).round().astype(np.int64) if count else np.empty(0, np.int64)


class NarratorValidation:
    """Validates one rank's share of some rows of the val split.

    `scores` are those of the captions that the last validation wrote, None before and where it wrote none.
    """

    def __init__(self, job: NarratorJob, reader: SampleReader, *, chunk_size: int, rank: int, world_size: int) -> None:
        self._table = ray.get(reader.data.val)
        self._assembler = reader.assembler(reader.data.val)
        self._job = job
        rows = choose_val_rows(job, reader.data)
        mine = rows[rank::world_size]
        self._chunks = [mine[start : start + chunk_size] for start in range(0, len(mine), chunk_size)]
        self._kept = KeptChunks(self._decode, lambda chunk: chunk.pictures.nbytes, max_bytes=_KEPT_BYTES)
        self.is_empty = len(rows) == 0
        self.scores: CaptionScores | None = None

    @torch.no_grad()
    def metrics(self, state: NarratorState) -> dict[str, float]:
        """Return val/caption_loss, val/<fact>_right and caption metrics, alike on every rank; {} without a val split.

        Every rank must call it.
        """
        if self.is_empty:
            return {}
        model = state.narrator.model
        device = next(model.parameters()).device
        was_training = model.training
        model.eval()
        # The sums over clips: loss, tokens, clips whose truth is known, and those named right for each fact.
        sums = torch.zeros(3 + len(FACT_NAMES), dtype=torch.float64, device=device)
        captioned: list[Captioned] = []
        for number, rows in enumerate(self._chunks):
            chunk = self._kept[number]
            labels = chunk.labels.to(device)
            with state.autocast():
                sums[0] += state.plain_loss(chunk.pictures.to(device), labels)
                sums[1] += (labels != IGNORED).sum()
            captions = self._narrate(state, chunk, device)
            captioned += [Captioned(int(row), caption) for row, caption in zip(rows, captions, strict=True)]
            pairs = zip(captions, chunk.things, strict=True)
            known = [(caption, thing) for caption, thing in pairs if caption is not None and thing is not None]
            if known:
                right = count_named_right([caption for caption, _ in known], [thing for _, thing in known])
                sums[2:] += torch.tensor([len(known), *right.values()], device=device)
        model.train(was_training)
        total = gather_plain(sums[None]).sum(dim=0).tolist()
        metrics = {"val/caption_loss": total[0] / max(total[1], 1.0)}
        if total[2]:
            metrics |= {
                f"val/{name}_right": 100 * count / total[2] for name, count in zip(FACT_NAMES, total[3:], strict=True)
            }
        return metrics | self._score(captioned, device)

    def _narrate(self, state: NarratorState, chunk: _Chunk, device: torch.device) -> list[str | None]:
        """Return captions of the clips that could be read; where none are asked for, of those whose truth is known."""
        is_asked = self._job.val_captions
        chosen = [
            place
            for place, (is_valid, thing) in enumerate(zip(chunk.valid, chunk.things, strict=True))
            if is_valid and (is_asked or thing is not None)
        ]
        captions: list[str | None] = [None] * len(chunk.valid)
        if chosen:
            with state.autocast():
                max_tokens = self._job.data.max_caption_tokens
                written = state.plain_loss.narrate(chunk.pictures[chosen].to(device), max_tokens=max_tokens)
            for place, caption in zip(chosen, written, strict=True):
                captions[place] = caption
        return captions

    def _score(self, captioned: list[Captioned], device: torch.device) -> dict[str, float]:
        if not self._job.val_captions:
            return {}
        mixed = self._job.data.captions
        sources = None if mixed is None else frozenset(source for source, share in mixed.items() if share > 0)
        everyones = gather_captions(captioned, device)
        self.scores = score_captioned(everyones, self._table, sources=sources, every=self._job.val_every)
        return as_metrics(self.scores)

    def _decode(self, number: int) -> _Chunk:
        rows = self._chunks[number]
        arrays = self._assembler.assemble(rows)
        valid = torch.from_numpy(arrays["valid"])
        return _Chunk(
            torch.from_numpy(arrays["pictures"]),
            torch.from_numpy(arrays["labels"]).masked_fill(~valid[:, None], IGNORED),
            valid.tolist(),
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
