"""Classes told of the val split during training: each worker tells its share, rank 0 the accuracy. Test is never read
here."""

from typing import cast

import numpy as np
import ray
import torch

from mama_ray.data.batch import to_clip_batch
from mama_ray.data.classes.names import CLASS
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.models.heads.classes import ClassHeads, clip_feature, split_kinds
from mama_ray.objectives.gather import gather_plain
from mama_ray.objectives.gather import rank as current_rank
from mama_ray.orchestration.runs.kept_chunks import KeptChunks
from mama_ray.orchestration.training.clip_reader import ClipReader

_CHUNK = 64
_KEPT_BYTES = 512 << 20  # decoded clips kept per worker


class ClassValidation:
    """This worker's part of the clips of the val split; `measured` is the kind that a run is selected by."""

    def __init__(self, reader: ClipReader, table: ray.ObjectRef, *, measured: str, rank: int, world_size: int) -> None:
        self._assembler, self._measured = reader.labelled(table), measured
        self._num_clips = len(ray.get(table))
        self._rows = np.array_split(np.arange(self._num_clips), world_size)[rank]
        self._chunks = KeptChunks(self._decode, lambda chunk: chunk["frames"].nbytes, max_bytes=_KEPT_BYTES)

    @torch.no_grad()
    def metrics(self, model: DualEncoder, head: torch.nn.Module | None) -> dict[str, float]:
        """Return val/accuracy, of the measured kind, and val/accuracy/<kind>, in percent of all clips, on rank 0; {}
        elsewhere and without a val split. A clip that cannot be read is told wrong."""
        if not self._num_clips:
            return {}
        heads = cast(ClassHeads, head)
        was_training = model.training
        model.eval(), heads.eval()
        device = next(model.parameters()).device
        num_right = torch.zeros(len(heads.sizes), dtype=torch.int64, device=device)
        for start in range(0, len(self._rows), _CHUNK):
            batch = to_clip_batch(self._chunks[start]).to(device)
            logits = split_kinds(heads(clip_feature(model, batch.frames)), heads.sizes)
            for place, (kind, scores) in enumerate(logits.items()):
                # The largest of scores that are no numbers would be the first class, which is right now and then.
                is_right = (scores.argmax(dim=1) == batch.targets[CLASS + kind]) & scores.isfinite().all(dim=1)
                num_right[place] += (is_right & batch.valid).sum()
        model.train(was_training), heads.train(was_training)
        shares = gather_plain(num_right[None]).sum(0).cpu().numpy() / self._num_clips
        if current_rank() != 0:
            return {}
        by_kind = {
            f"val/accuracy/{kind}": 100.0 * float(share) for kind, share in zip(heads.sizes, shares, strict=True)
        }
        return {"val/accuracy": by_kind[f"val/accuracy/{self._measured}"], **by_kind}

    def _decode(self, start: int) -> dict[str, np.ndarray]:
        return self._assembler.assemble(self._rows[start : start + _CHUNK])
