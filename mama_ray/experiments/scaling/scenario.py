"""What goes into the simulation of a captioning job, and what comes out of it."""

import math
from dataclasses import dataclass, field

from pydantic import Field

from mama_ray.config import Config
from mama_ray.orchestration.captioning.parts import CHUNK_CLIPS
from mama_ray.orchestration.cluster.pipelines import NUMBERS_PER_PIPELINE

_READ_THREADS = 8  # mama_ray/data/reading.py


class CaptionScenario(Config):
    """A captioning job on a cluster: what there is of each resource, and what a clip or chunk takes of it."""

    num_clips: int = Field(ge=1)
    """Clips to caption."""
    chunk_clips: int = Field(CHUNK_CLIPS, ge=1)
    """Clips of a chunk: what a decode task, the driver, the ledger and a commit see as one."""
    chunks_per_pipeline: int = Field(NUMBERS_PER_PIPELINE, ge=1)
    """Chunks after which a pipeline ends and the next begins, with engines of its own."""
    num_engines: int = Field(ge=1)
    """Engines, one per GPU."""
    engines_per_node: int = Field(8, ge=1)
    """Engines that a loss of their node takes down together."""
    engine_clips_per_s: float = Field(gt=0)
    """Clips per second of an engine that has enough of them."""
    engine_start_s: float = Field(0.0, ge=0)
    """From a node that is there, or a pipeline that begins, to an engine that is ready."""
    growth_s: float = Field(0.0, ge=0)
    """Between the starts of two engines: 0 starts all at once (pool.initial_size = pool.max_size)."""
    concurrent_batches: int = Field(3, ge=1)
    """Chunks in an engine at a time; as many again wait in its actor."""
    decode_tasks: int = Field(ge=1)
    """Decode tasks at a time, each with a core of its own, evenly over the nodes."""
    decode_s: float = Field(ge=0)
    """Seconds of a core per clip: hash, decoding, key frames, grid."""
    queue_chunks: int = Field(64, ge=1)
    """Chunks of grids that may wait between decoding and engines."""
    read_latency_s: float = Field(0.0, ge=0)
    """Of one request to the storage."""
    gets_per_chunk: float = Field(0.0, ge=0)
    """Requests that read a whole chunk's clips, neighbours together."""
    opens_per_chunk: float = Field(0.0, ge=0)
    """Requests that open its shards."""
    clip_bytes: float = Field(0.0, ge=0)
    """Bytes of a clip's video."""
    connection_bytes_per_s: float = Field(85e6, gt=0)
    """Of one request; a task has eight at a time."""
    gets_per_s: float = Field(1e12, gt=0)
    """Read requests that the storage answers, all clients together."""
    read_bytes_per_s: float = Field(1e15, gt=0)
    """Bytes that the storage or the network delivers, all nodes together."""
    puts_per_chunk: float = Field(1.0, ge=0)
    """Writing requests of a commit."""
    puts_per_s: float = Field(1e12, gt=0)
    """Writing requests that the storage answers."""
    commit_s: float = Field(0.0, ge=0)
    """Latency of a commit; the engine works on meanwhile."""
    source_s_per_chunk: float = Field(0.0, ge=0)
    """Seconds of the driver per chunk before a pipeline begins: a block of its source."""
    driver_s_per_chunk: float = Field(0.0, ge=0)
    """Seconds of the driver's one scheduling thread per chunk."""
    ledger_s_per_chunk: float = Field(0.0, ge=0)
    """Seconds of the ledger per chunk (two calls)."""
    losses_per_node_hour: float = Field(0.0, ge=0)
    """Nodes that a cloud takes back, per hour and node."""
    replacement_s: float = Field(300.0, ge=0)
    """From a loss to the next node's being there."""
    max_pipelines: int = Field(24, ge=1)
    """Whole pipelines to simulate where nodes are lost; the others are taken to be like them. Without losses all are
    alike, and one is simulated."""
    seed: int = 0
    """Of the losses."""

    @property
    def read_s_per_chunk(self) -> float:
        """Seconds in which a decode task waits for the storage before it decodes a whole chunk."""
        return read_seconds(
            self.gets_per_chunk, self.opens_per_chunk, self.chunk_clips * self.clip_bytes,
            latency_s=self.read_latency_s, connection_bytes_per_s=self.connection_bytes_per_s,
        )  # fmt: skip


def read_seconds(
    gets: float, opens: float, num_bytes: float, *, latency_s: float, connection_bytes_per_s: float
) -> float:
    """Return seconds of a reading: shards are opened and their requests sent eight at a time."""
    rounds = math.ceil(gets / _READ_THREADS)
    bytes_s = rounds * num_bytes / gets / connection_bytes_per_s if gets else 0.0
    return (math.ceil(opens / _READ_THREADS) + rounds) * latency_s + bytes_s


@dataclass
class CaptionRun:
    """What a simulated job did. `busy` is each resource's share of the wall time, 1 for one that is never idle."""

    wall_s: float
    num_committed: int
    clips_redone: int
    decode_s_redone: float
    num_losses: int
    num_pipelines: int
    busy: dict[str, float]
    commits: list[tuple[float, int]] = field(repr=False)
    """(seconds, clips) of every simulated commit, in order."""

    @property
    def clips_per_s(self) -> float:
        """Clips committed per second of the pipeline's life."""
        return self.num_committed / self.wall_s

    @property
    def bottleneck(self) -> str:
        """The busiest resource."""
        return max(self.busy, key=lambda name: self.busy[name])


def steady_clips_per_s(commits: list[tuple[float, int]]) -> float:
    """Return clips per second of the second half of the clips: what piles up while engines start is in the first."""
    total, done = sum(clips for _, clips in commits), 0
    for number, (time_s, clips) in enumerate(commits):
        done += clips
        if done >= total / 2 and commits[-1][0] > time_s:
            return sum(own for _, own in commits[number + 1 :]) / (commits[-1][0] - time_s)
    return total / max(commits[-1][0], 1e-9)
