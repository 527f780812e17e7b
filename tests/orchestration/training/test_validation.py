"""Validation during training ranks every clip of the val split once, whatever the number of workers."""

import numpy as np
import pytest
import torch
from torch import nn

from mama_ray.orchestration.training.validation import ValidationSet

NUM_CLIPS = 67  # prime, and more than one chunk
CLIP_IDS = [f"c{number}" for number in range(NUM_CLIPS)]


class NumberedClips:
    """The text and the single pixel of clip k are k; clip 5 cannot be read."""

    def assemble(self, rows):
        rows = np.asarray(rows)
        frames = rows.astype(np.uint8)[:, None, None, None, None]
        return {"frames": frames, "token_ids": rows[:, None], "rows": rows, "valid": rows != 5}


class RecordingModel(nn.Module):
    """Gives all clips the same features, so the mean rank tells how many compete; notes which it saw."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen: list[int] = []

    def encode_video(self, frames):
        self.seen += frames.flatten().tolist()
        return torch.ones(len(frames), 1)

    def encode_text(self, token_ids):
        return torch.ones(len(token_ids), 1)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_validation_sees_every_row(world_size):
    """Each worker's share is ranked by itself here, as no process group joins them."""
    model, num_ranked = RecordingModel(), 0
    for rank in range(world_size):
        share = ValidationSet(NumberedClips(), CLIP_IDS, rank=rank, world_size=world_size)
        num_ranked += round(2 * share.metrics(model)["val/t2v_mean_rank"] - 1)  # ties take the middle rank
    assert set(model.seen) == set(range(NUM_CLIPS))
    assert num_ranked == NUM_CLIPS - 1  # all but the unreadable one, and none twice
