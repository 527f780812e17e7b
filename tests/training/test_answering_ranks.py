"""Two workers train backbones that can answer on retrieval, answers or classes alone: some weights have no gradient."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mama_ray.data.batch import ClipBatch
from mama_ray.data.classes.names import CLASS
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.models.heads.classes import ClassHeads, clip_feature_dim
from mama_ray.models.vgt.model import Vgt
from mama_ray.models.violet.model import Violet
from mama_ray.objectives.classification import ClassificationObjective
from mama_ray.objectives.question_answering import AnsweringObjective
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.loop import train
from mama_ray.training.settings import OptimConfig
from mama_ray.training.state import build_state
from mama_ray.weighting.settings import MetaConfig, WeightingConfig
from tests.models.tiny_backbones import TINY
from tests.models.vgt.small import features, padded_texts
from tests.ranks import leave_group

NUM_STEPS, SIZE = 3, 4
KINDS = {"verb": 3, "noun": 5}
CASES = {
    "violet": {"arrangement": "shared"},
    "violet faithful": {"arrangement": "faithful", "num_micro_batches": 2},
    "vgt": {"arrangement": "shared"},
    "violet answers": {"arrangement": "shared"},
    "violet answers, faithful": {"arrangement": "faithful"},
    "violet classes": {"arrangement": "shared"},
}


def new_model(name: str) -> DualEncoder:
    torch.manual_seed(0)
    config = TINY[name.split()[0]]
    return (Vgt(config) if name == "vgt" else Violet(config)).double()


def batch_of(name: str, seed: int, size: int, config) -> ClipBatch:
    torch.manual_seed(seed)
    if name == "vgt":
        video = features(config, size)
        frames = torch.cat([video["frames"], video["regions"].flatten(3)], dim=-1)
    else:
        frames = torch.randint(0, 255, (size, 3, 32, 32, 3), dtype=torch.uint8)
    prompts = {"token_ids": torch.randint(5, 40, (size, 9)), "mask_positions": torch.randint(0, 9, (size,))}
    asked = ({"answer": torch.randint(0, 40, (size,))}, prompts) if "answers" in name else ()
    if "classes" in name:
        asked = ({CLASS + kind: torch.randint(0, number, (size,)) for kind, number in KINDS.items()},)
    return ClipBatch(
        frames, padded_texts(*([5] * size)), torch.arange(size), torch.ones(size, dtype=torch.bool), *asked
    )


def run(name: str, rank: int, world_size: int) -> dict[str, torch.Tensor]:
    """Three steps, a meta step in each; returns the weights."""
    options = dict(CASES[name])
    parts = options.pop("num_micro_batches", 1)
    model = new_model(name)
    learns_task = "answers" in name or "classes" in name
    task, head = AnsweringObjective() if "answers" in name else None, None
    if "classes" in name:
        head = ClassHeads(clip_feature_dim(model), KINDS, dropout=0.0).double()
        task = ClassificationObjective(tuple(KINDS.items()), 0.1)
    state = build_state(
        model,
        head=head,
        objective=None if learns_task else ContrastiveConfig(margin=0.2),
        task=task,
        weighting=WeightingConfig(hidden_dim=8),
        meta=MetaConfig(meta_every=1, **options),
        optim=OptimConfig(lr=0.01),
        num_steps=NUM_STEPS,
        global_batch_size=SIZE,
        num_micro_batches=parts,
    )
    own = slice(rank * SIZE // world_size, (rank + 1) * SIZE // world_size)
    batches = [batch_of(name, step, SIZE, model.config)[own] for step in range(NUM_STEPS)]
    metas = [batch_of(name, 100 + step, SIZE, model.config)[own] for step in range(NUM_STEPS)]
    train(state, batches, metas, report=lambda _: None)
    return {key: value.detach().clone() for key, value in model.named_parameters()}


def worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.save({name: run(name, rank, 2) for name in CASES}, Path(folder) / f"rank{rank}.pt")
    leave_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, str(folder)), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_workers_train_what_their_loss_reads_and_leave_the_rest(ranks, name):
    one, other = (found[name] for found in ranks)
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    before, alone = dict(new_model(name).named_parameters()), run(name, 0, 1)
    moved = {key for key, value in alone.items() if not torch.equal(value, before[key])}
    assert 0 < len(moved) < len(alone), "some weights are for the other purpose alone"
    assert moved == {key for key, value in one.items() if not torch.equal(value, before[key])}
    if name != "vgt":  # whose batch statistics are each worker's own
        for key, value in alone.items():
            torch.testing.assert_close(one[key], value, rtol=1e-6, atol=1e-9, msg=key)
