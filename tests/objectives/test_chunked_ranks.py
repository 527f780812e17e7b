"""Two and three gloo ranks with chunked losses equal one rank with whole ones on the joined batch."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from mama_ray.objectives.contrastive import compute_contrastive_losses
from mama_ray.objectives.gather import gather_plain
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.weighting.features import FeatureModel
from mama_ray.weighting.hypergradient import directional_derivatives
from tests.objectives.test_contrastive import unit_features
from tests.ranks import leave_group
from tests.weighting.test_distributed import slice_of
from tests.weighting.toys import ToyEncoder, build_step, random_batch, random_weight_net

GLOBAL_BATCH, META_BATCH, SCALE = 12, 6, 2.0
CHUNK_SIZES = (5, 2)  # across the ranks' borders, and less than a rank's own
RULES = {"margin": 0.3, "obtuse_positives": "always", "close_negatives": "close_too"}


def measure(rank: int, world_size: int, chunk_size: int) -> dict[str, Tensor]:
    """What every rank should agree on: losses, their gradients, directional derivatives, a step's gradients."""
    config = ContrastiveConfig(chunk_size=chunk_size, **RULES)
    video, text = unit_features(3, batch=GLOBAL_BATCH)
    size = GLOBAL_BATCH // world_size
    own = slice(rank * size, (rank + 1) * size)
    valid = torch.ones(GLOBAL_BATCH, dtype=torch.bool)
    valid[[1, 5, 6, 7, 8, 9]] = False  # a whole chunk of five
    values = [video[own].requires_grad_(), text[own].requires_grad_(), torch.tensor(SCALE, dtype=video.dtype)]
    values[2].requires_grad_()
    losses = compute_contrastive_losses(*values, config, valid=valid[own])
    weights = torch.arange(1.0, GLOBAL_BATCH + 1, dtype=video.dtype)[own]
    of_video, of_text, of_scale = torch.autograd.grad((weights * losses).sum(), values)
    if world_size > 1:
        dist.all_reduce(of_scale)
    found = {"losses": losses, "video": of_video, "text": of_text}
    found = {name: gather_plain(value) for name, value in found.items()} | {"scale": of_scale}
    return {name: value.detach() for name, value in found.items()} | _measure_step(rank, world_size, config)


def _measure_step(rank: int, world_size: int, config: ContrastiveConfig) -> dict[str, Tensor]:
    net = random_weight_net()
    step = build_step(FeatureModel(ToyEncoder()), net, objective=config, arrangement="faithful")
    batch = slice_of(random_batch(0, GLOBAL_BATCH), rank, world_size)
    generator = torch.Generator().manual_seed(0)
    direction = {
        name: torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in step.parameters.items()
    }
    found = {
        method: gather_plain(
            directional_derivatives(
                lambda parameters: step._functional_losses(parameters, batch), step.parameters, direction, method
            )
        )
        for method in ("forward_mode", "second_order")
    }
    step.compute_gradients(batch, slice_of(random_batch(1, META_BATCH), rank, world_size))
    found["phi"] = torch.cat([parameter.grad.flatten() for parameter in net.parameters()])
    theta = torch.cat([value.grad.flatten() for value in step.parameters.values()])
    if world_size > 1:
        dist.all_reduce(theta)  # without DDP each rank has its part
    return found | {"theta": theta}


def worker(rank: int, world_size: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)
    outcome = {chunk_size: measure(rank, world_size, chunk_size) for chunk_size in CHUNK_SIZES}
    torch.save(outcome, Path(folder) / f"rank{rank}.pt")
    leave_group()


@pytest.fixture(scope="module", params=[2, 3])
def outcomes(request, tmp_path_factory) -> list[dict]:
    """What every rank of a group found, by chunk size."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(request.param, port, str(folder)), nprocs=request.param)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(request.param)]


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
def test_chunked_ranks_equal_one_whole_process_on_the_joined_batch(outcomes, chunk_size):
    alone = measure(0, 1, 0)
    for of_rank in outcomes:
        for name, value in alone.items():
            exact = name in ("losses", "video", "text", "scale")
            torch.testing.assert_close(
                of_rank[chunk_size][name],
                value,
                rtol=1e-12 if exact else 1e-9,
                atol=1e-12 if exact else 1e-11,
                msg=lambda text, name=name: f"{name}: {text}",
            )
