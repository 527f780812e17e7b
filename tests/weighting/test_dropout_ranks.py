"""Dropout and batch statistics over ranks: two gloo ranks have the masks of one that takes two micro-batches."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from tests.weighting.answering_toys import noisy_model, question_batch, question_step

WORLD_SIZE, SIZE, NUM_STEPS = 2, 8, 2


def run_steps(rank: int, world_size: int) -> dict[str, torch.Tensor]:
    model = noisy_model()
    wrapped = model
    if world_size > 1:
        wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True, broadcast_buffers=False)
    step = question_step(wrapped, weight_lr=0.1, num_micro_batches=WORLD_SIZE // world_size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    share, found = SIZE // world_size, {}
    own = slice(rank * share, (rank + 1) * share)
    for number in range(NUM_STEPS):
        batch, meta_batch = question_batch(number, SIZE)[own], question_batch(10 + number, SIZE)[own]
        result = step.compute_gradients(batch, meta_batch, step=number, measure_lookahead=True)
        found[f"losses{number}"] = result.losses
        found[f"meta{number}"] = torch.stack(
            [result.scalars[f"meta/{name}"] for name in ("loss", "loss_before_lookahead", "hypergradient_norm")]
        )
        found[f"phi{number}"] = torch.cat([parameter.grad.flatten() for parameter in step.weighting.parameters()])
        optimizer.step()
    found["theta"] = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    found["statistics"] = torch.cat([buffer.flatten().double() for buffer in model.buffers()])
    return found


def worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD_SIZE)
    torch.save(run_steps(rank, WORLD_SIZE), Path(folder) / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory) -> list[dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, str(folder)), nprocs=WORLD_SIZE)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(WORLD_SIZE)]


def test_two_ranks_equal_one_with_two_micro_batches(of_ranks):
    alone = run_steps(0, 1)
    for found in of_ranks:
        for name, value in alone.items():
            if name != "statistics":  # one rank moves them twice a step, two ranks once each
                torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


def test_all_ranks_have_the_same_running_statistics(of_ranks):
    assert torch.equal(of_ranks[0]["statistics"], of_ranks[1]["statistics"])
