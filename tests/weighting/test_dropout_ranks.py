"""Dropout over ranks, of a model with batch statistics and of adapters: two gloo ranks have the masks of one that takes
two micro-batches."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from mama_ray.models.settings import LoraConfig
from mama_ray.models.trained_part import choose_trained_part
from mama_ray.weighting.question_model import QuestionModel
from tests.ranks import leave_group
from tests.weighting.answering_toys import noisy_model, question_batch, question_step

WORLD_SIZE, SIZE, NUM_STEPS = 2, 8, 2


def adapted_model() -> QuestionModel:
    """Adapters with dropout, whose second factors are not 0, below a head that is trained whole."""
    model = noisy_model()
    choose_trained_part(model.model, lora=LoraConfig(rank=2, dropout=0.4))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.double()


MODELS = {"noisy": noisy_model, "adapted": adapted_model}


def run_steps(kind: str, rank: int, world_size: int) -> dict[str, torch.Tensor]:
    model = MODELS[kind]()
    wrapped = model
    if world_size > 1:
        wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True, forward_sync_buffers=False)
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
    for kind in MODELS:
        torch.save(run_steps(kind, rank, WORLD_SIZE), Path(folder) / f"{kind}{rank}.pt")
    leave_group()


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory) -> dict[str, list[dict[str, torch.Tensor]]]:
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, str(folder)), nprocs=WORLD_SIZE)
    return {
        kind: [torch.load(folder / f"{kind}{rank}.pt", weights_only=True) for rank in range(WORLD_SIZE)]
        for kind in MODELS
    }


@pytest.mark.parametrize("kind", MODELS)
def test_two_ranks_equal_one_with_two_micro_batches(of_ranks, kind):
    alone = run_steps(kind, 0, 1)
    for found in of_ranks[kind]:
        for name, value in alone.items():
            if name != "statistics":  # one rank moves them twice a step, two ranks once each
                torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("kind", MODELS)
def test_all_ranks_have_the_same_running_statistics(of_ranks, kind):
    assert torch.equal(of_ranks[kind][0]["statistics"], of_ranks[kind][1]["statistics"])
