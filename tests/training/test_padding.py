"""The loop on three ranks whose batches are padded records what one process records, and learns the same."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.diagnosis import StepWindow
from mama_ray.training.loop import train
from mama_ray.training.settings import OptimConfig
from mama_ray.training.state import build_state
from mama_ray.weighting.settings import MetaConfig, WeightingConfig
from tests.ranks import leave_group
from tests.weighting.test_distributed import slice_of
from tests.weighting.toys import ToyEncoder, random_batch

NUM_RANKS, BATCH, META_BATCH, NUM_STEPS, UNREADABLE = 3, 16, 8, 4, [2, 15]


def run_loop(rank: int, world_size: int) -> dict[str, torch.Tensor]:
    """Four steps, of which two are meta steps; two clips of every batch cannot be read."""
    state = build_state(
        ToyEncoder(),
        objective=ContrastiveConfig(margin=0.2),
        weighting=WeightingConfig(hidden_dim=8),
        meta=MetaConfig(meta_every=2),
        optim=OptimConfig(lr=0.01),
        num_steps=NUM_STEPS,
        global_batch_size=BATCH,
        num_micro_batches=2,
    )
    batches = [random_batch(step, BATCH) for step in range(NUM_STEPS)]
    for batch in batches:
        batch.valid[UNREADABLE] = False
    own = [slice_of(batch, rank, world_size, 2) for batch in batches]
    metas = [slice_of(random_batch(100 + step, META_BATCH), rank, world_size) for step in range(NUM_STEPS)]
    records = []
    train(state, own, metas, report=records.append, measure_every=1)
    window = StepWindow()
    for record in records:
        window.add(record)
    _, relative_weights = window.rows_and_weights(lambda step: torch.arange(BATCH).numpy())
    parameters = [*state.model.parameters(), *state.weighting.parameters()]
    return {
        "losses": torch.stack([record.losses for record in records]),
        "weights": torch.stack([record.weights for record in records]),
        "relative_weights": torch.from_numpy(relative_weights),
        "learned": torch.cat([parameter.detach().flatten() for parameter in parameters]),
        **{name: torch.tensor(value) for name, value in window.means().items()},
    }


def worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=NUM_RANKS)
    torch.save(run_loop(rank, NUM_RANKS), Path(folder) / f"rank{rank}.pt")
    leave_group()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> list[dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, str(folder)), nprocs=NUM_RANKS)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(NUM_RANKS)]


def test_three_ranks_with_padding_record_and_learn_what_one_process_does(outcomes):
    alone = run_loop(0, 1)
    assert alone["losses"].shape == (NUM_STEPS, BATCH)
    for of_rank in outcomes:
        assert of_rank.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(of_rank[name], value, rtol=1e-6, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def test_padding_is_not_counted_among_the_unreadable_clips(outcomes):
    assert {float(of_rank["data/num_invalid"]) for of_rank in outcomes} == {len(UNREADABLE)}
    assert {float(of_rank["data/num_valid"]) for of_rank in outcomes} == {BATCH - len(UNREADABLE)}
