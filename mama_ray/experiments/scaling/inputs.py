"""From measured rates and stated assumptions to scenarios of 100 million clips on so many GPUs."""

import json
import math
from pathlib import Path

from pydantic import Field

from mama_ray.config import Config, load_config
from mama_ray.experiments.scaling.scenario import CHUNK_CLIPS, CaptionScenario
from mama_ray.experiments.scaling.training import TrainScenario

_FOLDER = Path(__file__).parent
CALIBRATION = _FOLDER / "calibration.json"
ASSUMPTIONS = _FOLDER / "assumptions.yaml"
CLIPS_PER_SHARD = 256  # jobs/prepare.py


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
    checkpoint_every: int = Field(ge=0)
    """Steps between checkpoints."""
    checkpoint_s: float = Field(ge=0)
    """For which a checkpoint holds training up."""


class Remedies(Config):
    """What the pipeline as it is does not do, or a user did not set; the defaults are the pipeline as it is."""

    chunk_clips: int = CHUNK_CLIPS
    """Clips of a chunk: what the driver, the ledger and a commit see as one."""
    max_blocks: int = 4096
    """Blocks of the source: as many decode tasks there are at most."""
    num_prefixes: int = 1
    """Folders, or partitions of one, that the shards are spread over."""
    extra_decode_cpus_per_gpu: int = 0
    """CPUs of nodes without GPUs, per GPU."""


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


def read_seconds(assume: Assumptions, clip_mb: float) -> float:
    """Return the seconds per clip in which a decode task waits for the storage, eight reads at a time."""
    return (2 * assume.read_latency_s + clip_mb * 1e6 / assume.connection_bytes_per_s) / 8


def caption_scenario(
    assume: Assumptions,
    calibration: dict,
    *,
    num_clips: int,
    num_gpus: int,
    size: str = "1280x720",
    spot: bool = False,
    remedies: Remedies | None = None,
) -> CaptionScenario:
    """Return the simulation's scenario of a captioning job on a cluster."""
    r = remedies or Remedies()
    control, storage = calibration["control"], calibration["storage"]
    smaller = CHUNK_CLIPS / r.chunk_clips  # chunks that are so many times as large are so many times as few
    num_nodes = -(-num_gpus // assume.engines_per_node)
    return CaptionScenario(
        num_clips=num_clips,
        num_engines=num_gpus,
        engines_per_node=assume.engines_per_node,
        engine_clips_per_s=engine_rate(assume, calibration),
        engine_start_s=assume.engine_start_s,
        concurrent_batches=10,
        decode_tasks=num_gpus * (assume.decode_cpus_per_gpu + r.extra_decode_cpus_per_gpu),
        decode_s=decode_seconds(calibration, size),
        max_blocks=r.max_blocks,
        queue_chunks=20 * num_gpus,
        read_latency_s=assume.read_latency_s,
        gets_per_clip=requests(storage, "clip_read", ("GET", "HEAD")),
        clip_bytes=calibration["decode"][size]["clip_mb"] * 1e6,
        connection_bytes_per_s=assume.connection_bytes_per_s,
        gets_per_s=assume.gets_per_s_per_prefix * r.num_prefixes,
        read_bytes_per_s=assume.node_bytes_per_s * num_nodes,
        puts_per_chunk=requests(storage, "part", ("PUT", "POST", "DELETE")) * smaller,
        puts_per_s=assume.puts_per_s_per_prefix,
        commit_s=6 * assume.read_latency_s,
        driver_s_per_chunk=control["driver_cpu_s_per_chunk_8_engines"] * smaller,
        ledger_s_per_chunk=2 / control["ledger_calls_per_s"] * smaller,
        losses_per_node_hour=assume.losses_per_node_hour if spot else 0.0,
        replacement_s=assume.replacement_s,
    )


def train_scenario(
    assume: Assumptions, calibration: dict, *, num_gpus: int, decode_cpus: int, size: str, num_frames: int = 12
) -> TrainScenario:
    """Return the simulation's scenario of a training run."""
    own = calibration["decode"][size]
    return TrainScenario(
        num_workers=num_gpus,
        batch_size_per_worker=assume.train_batch_per_gpu,
        clips_per_s_per_gpu=assume.train_clips_per_s_per_gpu,
        decode_cpus_per_worker=decode_cpus,
        decode_s=own[f"train_{num_frames}_frames_s"] + own["hash_video_s"],
        decode_spread=0.2,
        read_s_per_batch=assume.train_batch_per_gpu / 8
        * (2 * assume.read_latency_s + own["clip_mb"] * 1e6 / assume.connection_bytes_per_s),
        meta_every=assume.meta_every,
        meta_step_ratio=assume.meta_step_ratio,
        num_parameters=assume.num_parameters,
        network_bytes_per_s=assume.network_bytes_per_s,
        overlap=assume.allreduce_overlap,
        checkpoint_every=assume.checkpoint_every,
        checkpoint_s=assume.checkpoint_s,
    )  # fmt: skip


def requests(storage: dict, what: str, kinds: tuple[str, ...]) -> float:
    """Return requests of some kinds per clip read, part or shard check."""
    return sum(storage.get(f"{kind}_per_{what}", 0.0) for kind in kinds)


def decode_cpus_per_gpu(clips_per_s: float, decode_s: float, read_s: float = 0.0, margin: float = 1.15) -> int:
    """Return the rule's answer: cores that keep a GPU of so many clips per second busy, and a margin for the spread."""
    return math.ceil(clips_per_s * (decode_s + read_s) * margin)
