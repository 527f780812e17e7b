"""Retrieval on the val split during training: each worker embeds its share, rank 0 ranks. Test is never read here."""

from collections.abc import Sequence

import numpy as np
import torch

from mama_ray.data.assemble import ClipAssembler
from mama_ray.data.batch import to_clip_batch
from mama_ray.data.region_features.assemble import FeatureAssembler
from mama_ray.evaluation.retrieval import retrieval_metrics
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.objectives.gather import gather_plain
from mama_ray.objectives.gather import rank as current_rank
from mama_ray.orchestration.runs.kept_chunks import KeptChunks

_CHUNK = 64
_KEPT_BYTES = 512 << 20  # decoded clips kept per worker, so that small val sets are decoded once


class ValidationSet:
    """This worker's every world_size-th clip of the val split."""

    def __init__(self, clips: ClipAssembler | FeatureAssembler, clip_ids: Sequence[str], *, rank: int, world_size: int):
        self._assembler, self._ids = clips, clip_ids
        num_rows = len(self._ids)
        self._num_padded = -(-num_rows // world_size) if num_rows else 0
        # Every worker embeds equally many clips, so that features can be gathered; the surplus is dropped by its id.
        self._rows = np.arange(rank, self._num_padded * world_size, world_size) % max(num_rows, 1)
        self._is_surplus = np.arange(rank, self._num_padded * world_size, world_size) >= num_rows
        self._chunks = KeptChunks(self._decode, lambda chunk: chunk["frames"].nbytes, max_bytes=_KEPT_BYTES)

    def __len__(self) -> int:
        return len(self._ids)

    @torch.no_grad()
    def metrics(self, model: DualEncoder) -> dict[str, float]:
        """Return val/t2v_R@1 etc. on rank 0; {} elsewhere and without a val split. Leaves out unreadable clips."""
        if not len(self):
            return {}
        was_training = model.training
        model.eval()
        device = next(model.parameters()).device
        videos, texts, valid = [], [], []
        for start in range(0, len(self._rows), _CHUNK):
            batch = to_clip_batch(self._chunks[start]).to(device)
            videos.append(model.encode_video(batch.frames).float())
            texts.append(model.encode_text(batch.token_ids).float())
            valid.append(batch.valid)
        model.train(was_training)
        keep = torch.cat(valid) & ~torch.from_numpy(self._is_surplus).to(device)
        rows = gather_plain(torch.from_numpy(self._rows).to(device)).cpu().numpy()
        kept = gather_plain(keep).cpu().numpy()
        video_features = gather_plain(torch.cat(videos)).cpu().numpy()[kept]
        text_features = gather_plain(torch.cat(texts)).cpu().numpy()[kept]
        if current_rank() != 0:
            return {}
        ids = [self._ids[row] for row in rows[kept]]
        return retrieval_metrics(video_features, text_features, ids, ids, prefix="val/")

    def _decode(self, start: int) -> dict[str, np.ndarray]:
        return self._assembler.assemble(self._rows[start : start + _CHUNK])
