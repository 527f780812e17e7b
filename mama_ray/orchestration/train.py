"""The training job: Ray Data streams shards into Ray Train workers that learn the dual encoder.

python jobs/train.py [configs/train/NAME.yaml] --storage URI --run NAME     # started again with the same two: resumes
"""

import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from ray.train import UserCallback

from mama_ray.config import Config, config_to_yaml, with_overrides
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.errors import UserError
from mama_ray.models.clip_vip.presets import preset
from mama_ray.objectives.contrastive import ContrastiveConfig
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.placement import PlacementConfig, Share, require_room
from mama_ray.orchestration.prepare.embedded import embedded_shards
from mama_ray.orchestration.runs.report import report_run, write_page
from mama_ray.orchestration.runs.run_folder import write_environment, write_run_config
from mama_ray.orchestration.runs.settings import NumWorkers, WorkerRange
from mama_ray.orchestration.runs.worker_group import resources_of_worker, run_workers
from mama_ray.orchestration.train_data import DataConfig, RunData, load_run_data
from mama_ray.orchestration.train_worker import train_fn_per_worker
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.places import absolute_uri, filesystem_for, join_uri
from mama_ray.training.manifest import CheckpointRef, best_checkpoint, latest_valid_checkpoint, list_checkpoints
from mama_ray.training.optim import OptimConfig
from mama_ray.weighting.step import MetaConfig
from mama_ray.weighting.weight_net import WeightingConfig

logger = logging.getLogger(__name__)


class ModelConfig(Config):
    """Which dual encoder is trained."""

    preset: str = "tiny"
    """Size of a model that starts from scratch: tiny, base_32 or base_16."""

    pretrained: str | None = None
    """Folder or URI of weights to start from (ours, Hugging Face CLIP's, CLIP-ViP's); takes the place of the preset."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""


class TrainJob(Config):
    """One training run."""

    shards: str | None = None
    """Folder or URI of shards with their index; null makes and uses the embedded corpus."""

    corpus: CorpusConfig = CorpusConfig()
    """The embedded corpus, where `shards` is null."""

    storage: str = "runs"
    """Folder or URI under which runs are kept."""

    run: str = Field("train", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the run; a run that exists is resumed."""

    model: ModelConfig = ModelConfig()
    """The dual encoder."""

    data: DataConfig = DataConfig()
    """Clips, captions, tokens, meta-set."""

    objective: ContrastiveConfig = ContrastiveConfig()
    """The contrastive loss and its margin."""

    weighting: WeightingConfig = WeightingConfig()
    """How losses become sample weights."""

    meta: MetaConfig = MetaConfig()
    """How the weight net learns from the meta-set."""

    optim: OptimConfig = OptimConfig()
    """The model's optimiser."""

    num_epochs: float = Field(10.0, gt=0)
    """Passes over the training split; a fraction is fine."""

    global_batch_size: int = Field(128, ge=2)
    """Clips per step over all workers: the negatives of the contrastive loss."""

    num_micro_batches: int = Field(1, ge=1)
    """Parts a worker's batch is encoded in; the gradient is that of the whole batch, the memory that of a part."""

    num_workers: NumWorkers = 2
    """Ray Train workers (DDP ranks): a number, or {min: 1, max: 8} for a group that goes on with fewer when nodes are
    lost and with more when they come. The global batch is the same with any number."""

    resize_every_s: float = Field(60.0, gt=0)
    """Seconds between two looks whether an elastic group may grow; to grow it starts anew from the last checkpoint."""

    cpus_per_worker: float = Field(1.0, gt=0)
    """CPUs of a train worker; decode tasks use what is left."""

    placement: PlacementConfig = PlacementConfig()
    """Nodes of train workers and of decode tasks."""

    use_gpu: bool = False
    """Give each worker a GPU (nccl); else CPU (gloo)."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast of the encoders; auto is bfloat16 on a GPU and float32 on a CPU. Losses are float32 always."""

    seed: int = Field(0, ge=0)
    """Seed of initial weights, clip order, frame sampling and caption choice."""

    log_every: int = Field(10, ge=1)
    """Steps between two records of metrics.jsonl."""

    checkpoint_every: int = Field(200, ge=1)
    """Steps between two checkpoints; each is preceded by validation, and the last step has one too."""

    num_checkpoints_to_keep: int = Field(2, ge=1)
    """Newest checkpoints kept; the best one by validation is always kept beside them."""

    max_failures: int = Field(3, ge=-1)
    """Worker crashes survived before the job fails; -1 is any number."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> "TrainJob":
        parts = self.workers.max * self.num_micro_batches
        if self.global_batch_size < parts:  # where it does not divide, the last workers' batches are padded
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is less than num_workers x num_micro_batches = {parts}"
            )
        if self.placement.worker_labels and self.workers.is_elastic:
            # Ray (2.60) counts the workers that fit by resources alone and would wait for ever for the labels.
            raise ValueError(
                "placement.worker_labels ties no elastic group: give its nodes a custom resource and name it in "
                "placement.worker_resources"
            )
        if self.precision == "bfloat16" and "difference" in self.meta.hypergradient:
            raise ValueError("meta.hypergradient: finite differences mean nothing in bfloat16; take forward_mode")
        return self

    @property
    def workers(self) -> WorkerRange:
        """How many train workers there may be."""
        return WorkerRange.of(self.num_workers, resize_every_s=self.resize_every_s)

    @property
    def is_meta_learned(self) -> bool:
        """Whether the run needs a meta-set."""
        return self.weighting.kind == "learned" and self.weighting.learner == "meta"

    def to_yaml(self) -> str:
        """Return the config as YAML that loads back."""
        return config_to_yaml(self)


def train(job: TrainJob) -> str:
    """Run or resume a training job; returns the line that names its result."""
    job = with_absolute_paths(job)
    run_uri = join_uri(job.storage, job.run)
    filesystem, run_path = filesystem_for(run_uri)
    job, num_steps, was_done = run_to_end(job)
    if was_done:
        return f"done already, {num_steps} steps: {run_uri}"
    best = best_checkpoint(list_checkpoints(filesystem, run_path))
    page, _ = report_run(job.run, run_uri, job.shards, benchmark=None)
    report = write_page(join_uri(run_uri, "report"), f"Run {job.run}", [page], None)
    logger.info("curves of the run: %s", report)
    score = "" if best.selection is None else f", best val t2v R@1 {best.selection:.1f} at step {best.step}"
    return f"trained {num_steps} steps{score}: {run_uri}"


def run_to_end(
    job: TrainJob, *, callbacks: Sequence[UserCallback] = (), num_runs: int = 1
) -> tuple[TrainJob, int, bool]:
    """Train from where the run stands to its last step; returns the job with its shards, the number of steps, and
    whether they were done before.

    The job's paths are absolute. `callbacks` hear of every validation; `num_runs` runs share the cluster with this one.
    """
    run_uri = join_uri(job.storage, job.run)
    filesystem, run_path = filesystem_for(run_uri)
    ensure_writable(run_uri)
    ensure_readable(*inputs_of(job))
    write_run_config(job, filesystem, run_path)
    if job.model.pretrained is None:
        preset(job.model.preset)  # an unknown name fails here, not in a worker
    newest = latest_valid_checkpoint(filesystem, run_path)
    connect()
    if job.shards is None:
        job = job.model_copy(update={"shards": embedded_shards(job.corpus, job.storage)})
    data = load_run_data(job.shards, job.data, seed=job.seed, tokenizer=_tokenizer_of(job, newest))
    check_sizes(job, data)
    _refuse_other_captions(job, data, filesystem, run_path)
    write_environment(data.summary, filesystem, run_path)
    num_steps = math.ceil(job.num_epochs * data.summary["num_clips"]["train"] / job.global_batch_size)
    logger.info("run %s: %s clips, %d steps", run_uri, data.summary["num_clips"], num_steps)
    if newest is not None and newest.step >= num_steps:
        return job, num_steps, True
    settings = {"data": data, "num_steps": num_steps, "num_runs": num_runs}
    _require_room(job)
    group = {"workers": job.workers, "placement": job.placement}
    run_workers(train_fn_per_worker, settings, job, filesystem, run_path, **group, callbacks=callbacks)
    return job, num_steps, False


def inputs_of(job: TrainJob) -> tuple[str | None, ...]:
    """Return the folders and URIs that a job reads, None for what it makes itself."""
    return job.shards, *job.data.caption_tables, job.data.tokenizer, job.model.pretrained


def with_absolute_paths(job: TrainJob) -> TrainJob:
    """Name every place so that workers, whose working directory is another, find it too."""
    changes = {"storage": absolute_uri(job.storage)}
    if job.shards is not None:
        changes["shards"] = absolute_uri(job.shards)
    if job.data.tokenizer is not None:
        changes["data.tokenizer"] = absolute_uri(job.data.tokenizer)
    if job.data.caption_tables:
        changes["data.caption_tables"] = [absolute_uri(uri) for uri in job.data.caption_tables]
    if job.model.pretrained is not None and Path(job.model.pretrained).exists():  # else a hub id or a URI
        changes["model.pretrained"] = absolute_uri(job.model.pretrained)
    return with_overrides(job, changes)


def _tokenizer_of(job: TrainJob, newest: CheckpointRef | None) -> str | None:
    """Where the run's tokenizer is, if it has one: with the pretrained weights, or in its newest whole checkpoint."""
    if job.data.tokenizer is not None:
        return None
    if job.model.pretrained is not None:
        return job.model.pretrained
    return newest and join_uri(job.storage, job.run, "checkpoints", newest.path.rsplit("/", 1)[1])


def check_sizes(job: TrainJob, data: RunData) -> None:
    """Raise UserError where a split has fewer clips than one batch of it."""
    counts = data.summary["num_clips"]
    if counts["train"] < job.global_batch_size:
        raise UserError(
            "fewer training clips than one batch", got=counts["train"], wanted=f">= {job.global_batch_size}"
        )
    if job.is_meta_learned and counts["meta"] < job.meta.batch_size:
        raise UserError(
            "meta-set too small",
            got=f"{counts['meta']} clips",
            wanted=f"at least meta.batch_size = {job.meta.batch_size}",
            remedy="mark clips with split meta, set data.meta_draw, or take weighting.kind uniform",
        )


def _require_room(job: TrainJob) -> None:
    """Tell what can never be placed: the smallest group of workers, on its nodes, and one decode task on its own."""
    worker = resources_of_worker(job, job.placement)
    workers = Share({name: job.workers.min * amount for name, amount in worker.items()}, job.placement.worker_labels)
    # A decode task takes what CPU it finds where none is left to reserve, but there must be a node for it.
    decoding = Share({"memory": 1.0}, job.placement.decode_labels)
    remedy = "lower num_workers or what a worker reserves, or leave out placement"
    is_cluster = "RAY_ADDRESS" in os.environ
    require_room("the group of train workers", [workers, decoding], is_cluster=is_cluster, remedy=remedy)


def _refuse_other_captions(job: TrainJob, data: RunData, filesystem, run_path: str) -> None:
    """Raise UserError if a run that has a checkpoint finds other captions in its tables than it began with."""
    path = f"{run_path}/environment.json"
    if not (filesystem.get_file_info(path).is_file and list_checkpoints(filesystem, run_path)):
        return
    with filesystem.open_input_stream(path) as stream:
        earlier = json.loads(stream.read())["data"].get("caption_tables", {})
    for uri, use in data.summary["caption_tables"].items():
        if uri in earlier and earlier[uri]["sha256"] != use["sha256"]:
            raise UserError(
                f"run {job.run} began with other captions in {uri}",
                got=f"{use['used']} captions with sha256 {use['sha256']}",
                wanted=f"{earlier[uri]['used']} with {earlier[uri]['sha256']}",
                remedy="put that table back to resume, or give --run another name",
            )
