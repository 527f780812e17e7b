"""What a step sends over the wire: torch's own record of collectives on two gloo ranks under DDP."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile

from mama_ray.weighting.features import FeatureModel
from tests.ranks import leave_group
from tests.weighting.toys import ToyEncoder, build_step, random_batch, random_weight_net

WORLD_SIZE, LOCAL_BATCH, LOCAL_META, DIM = 2, 6, 3, 6
NUM_PARAMETERS = sum(parameter.numel() for parameter in ToyEncoder().parameters())
STEPS = {
    "plain": {},
    "shared": {"arrangement": "shared"},
    "shared_finite_difference": {"arrangement": "shared", "hypergradient": "finite_difference"},
    "shared_micro_batches": {"arrangement": "shared", "num_micro_batches": 3},
    "faithful": {"arrangement": "faithful"},
}


def sizes_sent(step, batch, meta_batch) -> dict[str, list[int]]:
    """Elements of every all-reduce and of every rank's part of an all-gather in one step."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        step.compute_gradients(batch, meta_batch)
    sent: dict[str, list[int]] = {"all_reduce": [], "all_gather": [], "other": []}
    for event in recorded.events():
        kind = event.name.removeprefix("gloo:")
        if kind != event.name:
            numel = sum(int(torch.Size(shape).numel()) for shape in event.input_shapes)
            sent[kind if kind in sent else "other"].append(numel)
    return {kind: sorted(sizes) for kind, sizes in sent.items()}


def worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD_SIZE)
    sent = {}
    for name, options in STEPS.items():
        model = DistributedDataParallel(FeatureModel(ToyEncoder()), gradient_as_bucket_view=True)
        step = build_step(model, random_weight_net(), **options)
        batch = random_batch(rank, LOCAL_BATCH)
        meta_batch = None if name == "plain" else random_batch(10 + rank, LOCAL_META)
        for _ in range(2):  # DDP lays its buckets out anew after the first step
            step.compute_gradients(batch, meta_batch)
        sent[name] = sizes_sent(step, batch, meta_batch)
    torch.save(sent, Path(folder) / f"rank{rank}.pt")
    leave_group()


@pytest.fixture(scope="module")
def sent(tmp_path_factory) -> dict[str, dict[str, list[int]]]:
    folder = tmp_path_factory.mktemp("sent")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, str(folder)), nprocs=WORLD_SIZE)
    of_rank = [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(WORLD_SIZE)]
    assert of_rank[0] == of_rank[1]
    return of_rank[0]


def test_a_meta_step_adds_one_all_reduce_of_the_parameters_size(sent):
    """The meta loss and the counts of clips ride along (four elements more), so there is no tiny one."""
    feature_gradients = [LOCAL_META * WORLD_SIZE * DIM] * 2  # gloo's stand-in for the gather's reduce-scatter
    assert max(sent["plain"]["all_reduce"]) == NUM_PARAMETERS
    for name in ("shared", "shared_finite_difference", "shared_micro_batches"):
        expected = sent["plain"]["all_reduce"] + [NUM_PARAMETERS + 4] + feature_gradients
        assert sent[name]["all_reduce"] == sorted(expected), name


def test_a_faithful_meta_step_needs_a_further_one_because_its_lookahead_has_other_weights_than_its_step(sent):
    sizes = [size for size in sent["faithful"]["all_reduce"] if size >= NUM_PARAMETERS]
    assert sizes == [NUM_PARAMETERS, NUM_PARAMETERS, NUM_PARAMETERS + 4]


def test_nothing_that_is_gathered_is_larger_than_the_features(sent):
    largest = LOCAL_BATCH * DIM
    for name in STEPS:
        sizes = sent[name]["all_gather"]
        assert sizes.count(largest) >= 2 and max(sizes) == largest, name
        assert not sent[name]["other"], name
