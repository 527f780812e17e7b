"""What every train worker begins with: its rank, its device, its run's folder, and the digits it computes with."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import ray.train
import ray.train.torch
import torch

from mama_ray.orchestration.cluster.connect import start_worker_logging
from mama_ray.orchestration.runs.checkpoint_store import remove_stale_staging
from mama_ray.orchestration.runs.settings import Precision
from mama_ray.storage.places import Place


@dataclass(frozen=True)
class Worker:
    """One worker of a group that trains together."""

    rank: int
    world_size: int
    device: torch.device
    run_folder: Place


def begin_work(run_folder: Place) -> Worker:
    """Begin in a process that Ray Train started; the first worker clears away what a killed one left in the folder."""
    start_worker_logging()
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    # Else float32 convolutions are rounded to ten bits, in which finite differences and ranks of close scores drown.
    torch.backends.cudnn.allow_tf32 = False
    worker = Worker(context.get_world_rank(), context.get_world_size(), device, run_folder)
    if worker.rank == 0:
        remove_stale_staging(run_folder)
    return worker


def uses_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Tell whether a model runs under bfloat16 autocast: on a GPU, unless the job says otherwise."""
    return precision == "bfloat16" or (precision == "auto" and device.type == "cuda")


def autocast_for(precision: Precision, device: torch.device) -> Callable[[], AbstractContextManager]:
    """Return what gives the context that a forward pass runs under."""
    if uses_bfloat16(precision, device):
        return partial(torch.autocast, device.type, dtype=torch.bfloat16)
    return nullcontext
