"""A simulation of training: every worker's decode tasks against steps that all workers take together."""

import heapq
import random
from dataclasses import dataclass

from pydantic import Field

from mama_ray.config import Config
from mama_ray.experiments.scaling.pipeline import Server

_PREFETCHED = 2  # batches, mama_ray/orchestration/runs/batch_stream.py


class TrainScenario(Config):
    """A data-parallel training run: what a step takes of GPUs, network, decode cores and storage."""

    num_workers: int = Field(ge=1)
    """Train workers, one per GPU."""
    batch_size_per_worker: int = Field(ge=1)
    """Clips of a worker's batch."""
    num_steps: int = Field(400, ge=1)
    """Steps to simulate."""
    clips_per_s_per_gpu: float = Field(gt=0)
    """Of a plain step: forward, backward, optimiser, without communication."""
    decode_cpus_per_worker: int = Field(ge=1)
    """Decode tasks of a worker at a time, each with a core of its own and a whole local batch to decode."""
    decode_s: float = Field(ge=0)
    """Seconds of a core per clip."""
    decode_spread: float = Field(0.0, ge=0, lt=1)
    """How far a batch's decoding may be off, as a share: clips differ."""
    read_s_per_batch: float = Field(0.0, ge=0)
    """In which a decode task waits for its batch's clips."""
    gets_per_batch: float = Field(0.0, ge=0)
    """Requests of a worker's batch."""
    gets_per_s: float = Field(1e12, gt=0)
    """Requests that the storage answers, all workers together."""
    meta_every: int = Field(0, ge=0)
    """Every which step is a meta step; 0 is plain training."""
    meta_step_ratio: float = Field(1.99, ge=1)
    """Time of a step with its meta step over that of a plain one."""
    num_parameters: float = Field(0.0, ge=0)
    """Whose gradients are all-reduced in float32."""
    feature_dim: int = Field(512, ge=1)
    """Of the features that are all-gathered, video and text."""
    network_bytes_per_s: float = Field(1e15, gt=0)
    """Of one worker, each way."""
    overlap: float = Field(0.0, ge=0, le=1)
    """Share of the all-reduce that the backward pass hides."""
    checkpoint_every: int = Field(0, ge=0)
    """Steps between checkpoints; 0 is none."""
    checkpoint_s: float = Field(0.0, ge=0)
    """For which a checkpoint holds training up."""
    seed: int = 0
    """Of the spread."""


@dataclass(frozen=True)
class TrainRun:
    """What a simulated run did; the shares are of the wall time, of an average worker's GPU."""

    wall_s: float
    clips_per_s: float
    gpu_share: float
    waiting_share: float


def communication_s(scenario: TrainScenario) -> float:
    """Return seconds of a step in which the GPU waits for the network: ring all-reduce and two all-gathers."""
    others = (scenario.num_workers - 1) / scenario.num_workers
    reduce_bytes = 2 * others * scenario.num_parameters * 4
    gather_bytes = 2 * others * scenario.num_workers * scenario.batch_size_per_worker * scenario.feature_dim * 4
    return (reduce_bytes * (1 - scenario.overlap) + gather_bytes) / scenario.network_bytes_per_s


def simulate_training(scenario: TrainScenario) -> TrainRun:
    """Run the steps; decoding keeps the plan's order and is as far ahead as tasks and prefetching allow."""
    s = scenario
    rng = random.Random(s.seed)
    cores = [[0.0] * s.decode_cpus_per_worker for _ in range(s.num_workers)]
    ahead = s.decode_cpus_per_worker + _PREFETCHED
    storage = Server()
    begun: list[float] = []  # when step t was begun, which takes its batch away
    now = compute = 0.0
    for step in range(s.num_steps):
        may_start = begun[step - ahead] if step >= ahead else 0.0
        arrivals = []
        for own in cores:
            work_s = s.batch_size_per_worker * s.decode_s * (1 + s.decode_spread * rng.uniform(-1, 1))
            asked = max(heapq.heappop(own), may_start)
            answered = storage.take(asked, s.gets_per_batch / s.gets_per_s)
            ready = max(asked + s.read_s_per_batch, answered) + work_s
            heapq.heappush(own, ready)
            arrivals.append(ready)
        begun.append(max(now, *arrivals))
        is_meta = s.meta_every and (step + 1) % s.meta_every == 0
        step_s = s.batch_size_per_worker / s.clips_per_s_per_gpu * (s.meta_step_ratio if is_meta else 1.0)
        compute += step_s
        now = begun[-1] + step_s + communication_s(s)
        if s.checkpoint_every and (step + 1) % s.checkpoint_every == 0:
            now += s.checkpoint_s
    first = begun[0]  # the first batch is the start's, not the steps'
    wall_s = now - first
    num_clips = s.num_steps * s.num_workers * s.batch_size_per_worker
    communicating = s.num_steps * communication_s(s) / wall_s
    gpu_share = compute / wall_s
    return TrainRun(wall_s, num_clips / wall_s, gpu_share, 1 - gpu_share - communicating)
