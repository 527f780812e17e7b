"""From measured rates and stated assumptions to scenarios of 100 million clips on so many GPUs."""

import json
import math
from pathlib import Path

import numpy as np
from pydantic import Field

from mama_ray.config import Config, load_config
from mama_ray.data.plan import EpochPlan, PlanConfig
from mama_ray.data.reading import merge_neighbours
from mama_ray.experiments.scaling.scenario import CaptionScenario, read_seconds
from mama_ray.experiments.scaling.training import TrainScenario
from mama_ray.orchestration.captioning.job import PoolConfig
from mama_ray.orchestration.captioning.parts import chunk_clips_of
from mama_ray.orchestration.captioning.stream import pool_for_chunks
from mama_ray.orchestration.prepare.job import PrepareJob

_FOLDER = Path(__file__).parent
CALIBRATION = _FOLDER / "calibration.json"
REALITY = _FOLDER / "reality.json"
ASSUMPTIONS = _FOLDER / "assumptions.yaml"
CLIPS_PER_SHARD = PrepareJob().clips_per_shard
_CONCURRENT_BATCHES = 10  # configs/caption/mama.yaml
_QUEUE_CHUNKS_PER_GPU = 20
_GAP_BYTES = 1536  # of a tar between two videos: the header of the one, caption and header of the next
_PLAN_SHARDS, _PLAN_BATCHES = 64, 100


class Assumptions(Config):
    """What was not measured; assumptions.yaml has the values with their sources."""

    engine_clips_per_s: float = Field(gt=0)
    """Clips per second of LLaVA-1.5 7B on one GPU, without preparing the pictures."""
    kv_bytes_per_token: float = Field(gt=0)
    """Key-value cache of one token."""
    tokens_per_clip: float = Field(gt=0)
    """Prompt, picture and caption."""
    kv_cache_bytes: float = Field(gt=0)
    """Memory of a GPU for the cache."""
    engine_start_s: float = Field(ge=0)
    """From a node that is there to an engine that is ready."""
    engines_per_node: int = Field(ge=1)
    """GPUs of a node."""
    decode_cpus_per_gpu: int = Field(ge=1)
    """CPUs of a node, per GPU, that are free for decoding."""
    gets_per_s_per_prefix: float = Field(gt=0)
    """GET and HEAD requests per second of a storage's folder."""
    puts_per_s_per_prefix: float = Field(gt=0)
    """PUT, COPY, POST and DELETE requests per second of a folder."""
    read_latency_s: float = Field(ge=0)
    """Of a request."""
    connection_bytes_per_s: float = Field(gt=0)
    """Of a connection to the storage."""
    node_bytes_per_s: float = Field(gt=0)
    """Of a node's connections together."""
    losses_per_node_hour: float = Field(ge=0)
    """Spot nodes that are taken back."""
    replacement_s: float = Field(ge=0)
    """Until another node is there."""
    gpu_hour_usd: float = Field(ge=0)
    """A GPU with its share of the node's CPUs, on demand."""
    gpu_hour_spot_usd: float = Field(ge=0)
    """The same, spot."""
    cpu_hour_usd: float = Field(ge=0)
    """A CPU of a node without GPUs, on demand."""
    cpu_hour_spot_usd: float = Field(ge=0)
    """The same, spot."""
    gets_per_1000_usd: float = Field(ge=0)
    """Price of 1,000 reading requests."""
    puts_per_1000_usd: float = Field(ge=0)
    """Price of 1,000 writing or listing requests."""
    train_clips_per_s_per_gpu: float = Field(gt=0)
    """Clips per second of a plain training step on one GPU."""
    train_batch_per_gpu: int = Field(ge=1)
    """Clips of a worker's batch."""
    num_parameters: float = Field(ge=0)
    """Of the trained model."""
    network_bytes_per_s: float = Field(gt=0)
    """Between training GPUs, of each."""
    allreduce_overlap: float = Field(ge=0, le=1)
    """Share of the gradients' all-reduce that the backward pass hides."""
    meta_every: int = Field(ge=0)
    """Every which training step is a meta step."""
    meta_step_ratio: float = Field(ge=1)
    """Time of a step with its meta step over that of a plain one."""
    ray_over_memory: float = Field(gt=0, le=1)
    """Clips per second of training under Ray over those of its loop fed from memory."""
    checkpoint_every: int = Field(ge=0)
    """Steps between checkpoints."""
    checkpoint_s: float = Field(ge=0)
    """For which a checkpoint holds training up."""


class Settings(Config):
    """What a user chooses; the defaults are a user's who chose nothing."""

    size: str = "1280x720"
    """Clips that are read, by their name in the calibration."""
    shard_folders: int = 0
    """Of prepare: folders that the shards are spread over, each with requests of its own."""
    extra_decode_cpus_per_gpu: int = 0
    """CPUs of nodes without GPUs, per GPU."""
    num_jobs: int = 1
    """Jobs side by side, each with its share of the GPUs and a folder of shards of its own."""


def load_assumptions() -> Assumptions:
    """Read the checked-in assumptions."""
    return load_config(Assumptions, ASSUMPTIONS)


def load_calibration() -> dict:
    """Read the checked-in measurements."""
    return json.loads(CALIBRATION.read_text())


def engine_rate(assume: Assumptions, calibration: dict) -> float:
    """Return clips per second of an engine: its thread prepares the pictures, too, one after another."""
    return 1 / (1 / assume.engine_clips_per_s + calibration["engine"]["llava_processor_s_per_clip"])


def decode_seconds(calibration: dict, size: str) -> float:
    """Return seconds of a core per clip from its bytes to a grid that was hashed twice (task and engine's thread)."""
    own = calibration["decode"][size]
    return own["grid_s"] + own["hash_video_s"]


def train_decode_seconds(calibration: dict, size: str, num_frames: int = 12) -> float:
    """Return seconds of a core per clip from its bytes to training's frames."""
    own = calibration["decode"][size]
    return own[f"train_{num_frames}_frames_s"] + own["hash_video_s"]


def caption_read_seconds(assume: Assumptions, calibration: dict, size: str, chunk_clips: int) -> float:
    """Return the seconds per clip in which a captioning job's decode task waits for the storage."""
    num_bytes = calibration["decode"][size]["clip_mb"] * 1e6
    gets, opens = chunk_requests(num_bytes, chunk_clips)
    return _read_seconds(assume, gets, opens, chunk_clips * num_bytes) / chunk_clips


def train_read_seconds(assume: Assumptions, calibration: dict, size: str) -> float:
    """Return the seconds in which a training batch's decode task waits for the storage."""
    num_bytes = calibration["decode"][size]["clip_mb"] * 1e6
    gets, opens = batch_requests(num_bytes, assume.train_batch_per_gpu)
    return _read_seconds(assume, gets, opens, assume.train_batch_per_gpu * num_bytes)


def train_step_ratio(assume: Assumptions) -> float:
    """Return an average step's time over that of a plain one without Ray: meta steps, and what Ray takes."""
    meta = (assume.meta_step_ratio - 1) / assume.meta_every if assume.meta_every else 0.0
    return (1 + meta) / assume.ray_over_memory


def caption_scenario(
    assume: Assumptions,
    calibration: dict,
    *,
    num_clips: int,
    num_gpus: int,
    spot: bool = False,
    settings: Settings | None = None,
) -> CaptionScenario:
    """Return the simulation's scenario of a captioning job on a cluster; of several jobs, that of each of them."""
    own = settings or Settings()
    control, storage = calibration["control"], calibration["storage"]
    num_clips, num_gpus = -(-num_clips // own.num_jobs), -(-num_gpus // own.num_jobs)
    chunk_clips = chunk_clips_of(num_clips)
    pool = pool_for_chunks(PoolConfig(concurrent_batches=_CONCURRENT_BATCHES), chunk_clips)
    clip_bytes = calibration["decode"][own.size]["clip_mb"] * 1e6
    gets, opens = chunk_requests(clip_bytes, chunk_clips)
    return CaptionScenario(
        num_clips=num_clips,
        chunk_clips=chunk_clips,
        num_engines=num_gpus,
        engines_per_node=assume.engines_per_node,
        engine_clips_per_s=engine_rate(assume, calibration),
        engine_start_s=assume.engine_start_s,
        concurrent_batches=pool.concurrent_batches,
        decode_tasks=num_gpus * (assume.decode_cpus_per_gpu + own.extra_decode_cpus_per_gpu),
        decode_s=decode_seconds(calibration, own.size),
        queue_chunks=_QUEUE_CHUNKS_PER_GPU * num_gpus,
        read_latency_s=assume.read_latency_s,
        gets_per_chunk=gets,
        opens_per_chunk=opens,
        clip_bytes=clip_bytes,
        connection_bytes_per_s=assume.connection_bytes_per_s,
        gets_per_s=assume.gets_per_s_per_prefix * max(1, own.shard_folders),
        read_bytes_per_s=assume.node_bytes_per_s * -(-num_gpus // assume.engines_per_node),
        puts_per_chunk=sum(storage["part"].values()),
        puts_per_s=assume.puts_per_s_per_prefix,
        commit_s=sum(storage["part"].values()) * assume.read_latency_s,
        source_s_per_chunk=control["source_cpu_s_per_chunk"],
        driver_s_per_chunk=control["driver_cpu_s_per_chunk_8_engines"],
        ledger_s_per_chunk=2 / control["ledger_calls_per_s"],
        losses_per_node_hour=assume.losses_per_node_hour if spot else 0.0,
        replacement_s=assume.replacement_s,
    )


def train_scenario(
    assume: Assumptions,
    calibration: dict,
    *,
    num_gpus: int,
    decode_cpus: int,
    size: str,
    shard_folders: int = 0,
    num_frames: int = 12,
) -> TrainScenario:
    """Return the simulation's scenario of a training run."""
    return TrainScenario(
        num_workers=num_gpus,
        batch_size_per_worker=assume.train_batch_per_gpu,
        clips_per_s_per_gpu=assume.train_clips_per_s_per_gpu * assume.ray_over_memory,
        decode_cpus_per_worker=decode_cpus,
        decode_s=train_decode_seconds(calibration, size, num_frames),
        decode_spread=0.2,
        read_s_per_batch=train_read_seconds(assume, calibration, size),
        gets_per_batch=sum(batch_requests(calibration["decode"][size]["clip_mb"] * 1e6, assume.train_batch_per_gpu)),
        gets_per_s=assume.gets_per_s_per_prefix * max(1, shard_folders),
        meta_every=assume.meta_every,
        meta_step_ratio=assume.meta_step_ratio,
        num_parameters=assume.num_parameters,
        network_bytes_per_s=assume.network_bytes_per_s,
        overlap=assume.allreduce_overlap,
        checkpoint_every=assume.checkpoint_every,
        checkpoint_s=assume.checkpoint_s,
    )


def chunk_requests(clip_bytes: float, chunk_clips: int) -> tuple[int, int]:
    """Return the GETs and HEADs that read a chunk of neighbouring clips, as the reader merges them."""
    return _requests_of(np.arange(chunk_clips), clip_bytes)


def batch_requests(clip_bytes: float, batch_size: int, run_length: int = 1) -> tuple[float, float]:
    """Return the GETs and HEADs that read a worker's training batch, on average over some of the plan's batches."""
    plan = EpochPlan([CLIPS_PER_SHARD] * _PLAN_SHARDS, PlanConfig(run_length=run_length))
    steps = range(min(_PLAN_BATCHES, plan.num_clips // batch_size))
    counts = [_requests_of(plan.global_batch(step, batch_size)[0], clip_bytes) for step in steps]
    gets, opens = np.mean(counts, axis=0).tolist()
    return gets, opens


def _requests_of(rows: np.ndarray, clip_bytes: float) -> tuple[int, int]:
    places = [divmod(row, CLIPS_PER_SHARD) for row in rows.tolist()]
    size = int(clip_bytes)
    records = [{"shard": shard, "offset": place * (size + _GAP_BYTES), "num_bytes": size} for shard, place in places]
    return len(list(merge_neighbours(records))), len({shard for shard, _ in places})


def _read_seconds(assume: Assumptions, gets: float, opens: float, num_bytes: float) -> float:
    latency_s, per_s = assume.read_latency_s, assume.connection_bytes_per_s
    return read_seconds(gets, opens, num_bytes, latency_s=latency_s, connection_bytes_per_s=per_s)


def decode_cpus_per_gpu(clips_per_s: float, decode_s: float, read_s: float = 0.0, margin: float = 1.15) -> int:
    """Return the rule's answer: cores that keep a GPU of so many clips per second busy, and a margin for the spread."""
    return math.ceil(clips_per_s * (decode_s + read_s) * margin)
