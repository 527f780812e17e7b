"""VGT learns what its regions show: it answers by them, and by nothing else."""

import torch
import torch.nn.functional as F

from mama_ray.models.vgt.model import Vgt
from tests.models.vgt.small import small_config

NUM_CODES = 4


def questions(num: int, seed: int, *, shows: bool = True) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Videos in which one region, whichever, shows one of four things; the options name all, in any order."""
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, NUM_CODES, (num,), generator=draw)
    regions, frames = torch.randn(num, 3, 2, 5, 13, generator=draw), torch.randn(num, 3, 2, 6, generator=draw)
    slots = torch.randint(0, 5, (num,), generator=draw)
    if shows:
        regions[torch.arange(num), :, :, slots, :NUM_CODES] += 4 * F.one_hot(codes, NUM_CODES)[:, None, None]
    options = torch.stack([torch.randperm(NUM_CODES, generator=draw) for _ in range(num)])
    ids = torch.stack([torch.ones_like(options), options + 5, 2 * torch.ones_like(options)], dim=-1)
    return {"frames": frames, "regions": regions}, ids, (options == codes[:, None]).int().argmax(dim=1)


def accuracy(model: Vgt, *, shows: bool) -> float:
    video, options, answers = questions(256, 10_000, shows=shows)
    with torch.no_grad():
        return (
            (model.eval().answer(video, {"option_token_ids": options}).argmax(dim=1) == answers).float().mean().item()
        )


def test_it_answers_by_what_a_region_shows_and_is_at_chance_without():
    model = Vgt(small_config(**{"dropout": 0.1, "text.dropout": 0.0})).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for step in range(80):
        video, options, answers = questions(32, step)
        optimizer.zero_grad()
        F.cross_entropy(model.answer(video, {"option_token_ids": options}), answers).backward()
        optimizer.step()
    assert accuracy(model, shows=True) > 0.9
    assert accuracy(model, shows=False) < 0.35
