"""What a training job is asked for."""

from pathlib import Path

from pydantic import Field, model_validator

from mama_ray.config import AddedLater, Config, Location, MayChange, config_to_yaml, with_overrides
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.models.hub import prefix_of, without_prefix
from mama_ray.models.settings import LoraConfig
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.orchestration.cluster.labels import PlacementConfig
from mama_ray.orchestration.runs.settings import NumWorkers, Precision, WorkerRange
from mama_ray.orchestration.training.settings import DataConfig, RecordConfig
from mama_ray.reporting.trackers import TrackerName
from mama_ray.storage.places import absolute_uri
from mama_ray.training.settings import OptimConfig, TaskConfig
from mama_ray.weighting.settings import (
    OF_THE_CONTRAST,
    MetaConfig,
    WeightingConfig,
    require_known_sources,
    require_learnable_margin,
    require_learnable_share,
)


class ModelConfig(Config):
    """Which dual encoder is trained."""

    preset: str = "tiny"
    """Size of a model that starts from scratch: tiny, base_32, base_16, or one of docs/models.md, such as violet_v2 or
    vgt."""

    pretrained: Location[str | None] = None
    """Folder, URI or hub id of weights to start from (ours, CLIP-ViP's, a dual encoder's of Hugging Face), in place of
    the preset. Before CLIP's, hf: takes it as transformers computes it, frame by frame, timesformer: and joint: make a
    TimeSformer or a joint space-time ViT of it."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    drop_path: AddedLater[float | None] = Field(None, ge=0.0, lt=1.0)
    """Stochastic depth of the last block of a TimeSformer's video tower, linearly less before it; null leaves what the
    preset or the weights' config says. LaViLa fine-tunes with 0.1."""

    freeze: AddedLater[tuple[str, ...]] = ()
    """Patterns of parameters that are not trained, e.g. [text_model, "vision_model.encoder.layers.[0-5].*"]: names of
    model.safetensors with the wildcards of a shell, or of a part of the model with all that is in it."""

    lora: AddedLater[LoraConfig | None] = None
    """Train low-rank adapters of the linear layers instead of the weights themselves; null trains the weights."""


class TrainJob(Config):
    """One training run."""

    shards: Location[str | None] = None
    """Folder or URI of shards with their index; null makes and uses the embedded corpus."""

    corpus: CorpusConfig = CorpusConfig()
    """The embedded corpus, where `shards` is null."""

    storage: MayChange[str] = "runs"
    """Folder or URI under which runs are kept."""

    run: MayChange[str] = Field("train", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)
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

    task: AddedLater[TaskConfig] = TaskConfig()
    """What is learned beside the contrast: nothing, or to answer questions."""

    optim: OptimConfig = OptimConfig()
    """The model's optimiser."""

    num_epochs: float = Field(10.0, gt=0)
    """Passes over the training split; a fraction is fine."""

    global_batch_size: int = Field(128, ge=2)
    """Clips per step over all workers: the negatives of the contrastive loss."""

    num_micro_batches: MayChange[int] = Field(1, ge=1)
    """Parts a worker's batch is encoded in; the gradient is that of the whole batch, the memory that of a part."""

    num_workers: MayChange[NumWorkers] = 2
    """Ray Train workers (DDP ranks): a number, or {min: 1, max: 8} for a group that goes on with fewer when nodes are
    lost and with more when they come. The global batch is the same with any number."""

    resize_every_s: MayChange[float] = Field(60.0, gt=0)
    """Seconds between two looks whether an elastic group may grow; to grow it starts anew from the last checkpoint."""

    cpus_per_worker: MayChange[float] = Field(1.0, gt=0)
    """CPUs of a train worker; decode tasks use what is left."""

    placement: MayChange[PlacementConfig] = PlacementConfig()
    """Nodes of train workers and of decode tasks."""

    use_gpu: MayChange[bool] = False
    """Give each worker a GPU (nccl); else CPU (gloo)."""

    precision: Precision = "auto"
    """Autocast of the encoders; auto is bfloat16 on a GPU and float32 on a CPU. Losses are float32 always."""

    seed: int = Field(0, ge=0)
    """Seed of initial weights, clip order, frame sampling and caption choice."""

    record: AddedLater[MayChange[RecordConfig]] = RecordConfig()
    """Losses and weights of single samples, written down for jobs/audit.py."""

    log_every: MayChange[int] = Field(10, ge=1)
    """Steps between two records of metrics.jsonl."""

    checkpoint_every: MayChange[int] = Field(200, ge=1)
    """Steps between two checkpoints; each is preceded by validation, and the last step has one too."""

    num_checkpoints_to_keep: MayChange[int] = Field(2, ge=1)
    """Newest checkpoints kept; the best one by validation is always kept beside them."""

    trackers: MayChange[tuple[TrackerName, ...]] = ()
    """Experiment trackers that get the metrics too: mlflow, wandb. Where they are is said by their own environment
    variables."""

    max_failures: MayChange[int] = Field(3, ge=-1)
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
        if self.task.kind == "none" and self.weighting.weighted_term != "sum":
            raise ValueError(f"weighting.weighted_term {self.weighting.weighted_term} needs a task with a loss")
        _require_texts_of_sources(self.data, self.task, self.objective)
        _require_inputs(self.weighting, self.data, self.task)
        if self.meta.learns_margin:
            require_learnable_margin(self.meta, self.objective if self.task.contrast else None, self.weighting)
        if self.objective.mixes_captions:
            _require_two_texts(self.objective, self.data, self.task, self.weighting)
        if self.is_meta_learned and self.meta.inner.optimizer == "adam" and self.optim.optimizer != "adamw":
            raise ValueError(
                "meta.inner.optimizer adam takes the state of AdamW: got optim.optimizer sgd, wanted adamw"
            )
        if not self.task.contrast:
            _require_task_alone(self.task, self.weighting)
        if self.precision == "bfloat16" and "difference" in self.meta.hypergradient:
            raise ValueError(
                "meta.hypergradient: finite differences mean nothing in bfloat16; take forward_mode, precision float32"
            )
        return self

    @property
    def workers(self) -> WorkerRange:
        """How many train workers there may be."""
        return WorkerRange.of(self.num_workers, resize_every_s=self.resize_every_s)

    @property
    def answers_questions(self) -> bool:
        """Whether the run learns to answer questions."""
        return self.task.kind == "question_answering"

    @property
    def classifies(self) -> bool:
        """Whether the run learns to tell classes."""
        return self.task.kind == "classification"

    @property
    def learns_contrast(self) -> bool:
        """Whether clips are told apart by their captions, which they must have then."""
        return self.task.contrast

    @property
    def reads_classes(self) -> bool:
        """Whether something asks for the clips' classes."""
        return self.needs_relevance or self.classifies or self.data.positive_relevance is not None

    @property
    def needs_relevance(self) -> bool:
        """Whether the loss reads how relevant a text is to another clip."""
        return self.objective.needs_classes and self.learns_contrast

    @property
    def is_meta_learned(self) -> bool:
        """Whether the run needs a meta-set."""
        learns_weights = self.weighting.kind == "learned" and self.weighting.learner == "meta"
        return learns_weights or self.meta.learns_margin or self.objective.learns_share

    def to_yaml(self) -> str:
        """Return the config as YAML that loads back."""
        return config_to_yaml(self)


def _require_texts_of_sources(data: DataConfig, task: TaskConfig, objective: ContrastiveConfig) -> None:
    """Raise ValueError where the shares of sources, or texts of like clips, could not be kept to."""
    for name in ("shares", "positive_relevance"):
        if getattr(data, name) is not None and (task.kind == "question_answering" or not task.contrast):
            raise ValueError(f"data.{name} is about texts of clips: it goes with the contrast, not with questions")
    if data.flip and (task.kind != "classification" or task.contrast):
        raise ValueError(
            "data.flip would make left of right in the texts: it goes with classification without contrast"
        )
    if objective.generated_scale is not None and data.shares is None:
        raise ValueError("objective.generated_scale asks which texts were generated: give data.shares")


def _require_two_texts(
    objective: ContrastiveConfig, data: DataConfig, task: TaskConfig, weighting: WeightingConfig
) -> None:
    """Raise ValueError where clips cannot be learned from by their own text and a generated one at once."""
    option = f"objective.generated_share {objective.generated_share}"
    drawn = [name for name in ("captions", "shares", "positive_relevance") if getattr(data, name) is not None]
    if drawn:
        raise ValueError(f"{option} reads both texts of a clip, of which data.{drawn[0]} would draw one: leave it out")
    if data.caption_mode == "paragraph":
        raise ValueError(f"{option}: got data.caption_mode paragraph, which joins all captions, wanted draw")
    if task.kind != "none":
        raise ValueError(f"{option} is of the contrast alone: got task.kind {task.kind}, wanted none")
    if objective.learns_share:
        require_learnable_share(weighting)


def _require_inputs(weighting: WeightingConfig, data: DataConfig, task: TaskConfig) -> None:
    """Raise ValueError where the weight net would see what is not there."""
    require_known_sources(weighting)
    of_file = [name for name in weighting.columns if name not in ("topic", "source")]
    if of_file and weighting.features is None:
        raise ValueError(f"weighting.inputs: {of_file[0]} is a column of a table: give weighting.features")
    if weighting.features is not None and not weighting.columns:
        raise ValueError("weighting.features: name its columns in weighting.inputs")
    if not task.contrast and (unread := [name for name in weighting.inputs if name in OF_THE_CONTRAST]):
        raise ValueError(f"weighting.inputs: {unread[0]} is of the contrast: got task.contrast false")
    if "source" in weighting.columns and data.positive_relevance is not None:
        raise ValueError("weighting.inputs: source is that of a clip's own text, not of data.positive_relevance's")


def _require_task_alone(task: TaskConfig, weighting: WeightingConfig) -> None:
    """Raise ValueError where nothing is left to learn without the contrast."""
    if task.kind == "none" or task.eta == 0:
        got = "task.kind none" if task.kind == "none" else "task.eta 0"
        raise ValueError(f"task.contrast false learns a task alone: got {got}, wanted a task with a loss")
    if weighting.weighted_term != "sum":
        raise ValueError(f"weighting.weighted_term {weighting.weighted_term} needs task.contrast")


def inputs_of(job: TrainJob) -> tuple[str | None, ...]:
    """Return the folders and URIs that a job reads, None for what it makes itself."""
    pretrained = job.model.pretrained
    weights = None if pretrained is None else without_prefix(pretrained)
    asked = (job.task.questions, job.task.answers) if job.answers_questions else ()
    data = job.data
    files = data.exclude, data.tokenizer, job.weighting.features
    return job.shards, *data.caption_tables, *data.classes, *files, weights, *asked


def with_absolute_paths(job: TrainJob) -> TrainJob:
    """Name every place so that workers, whose working directory is another, find it too."""
    changes = {"storage": absolute_uri(job.storage)}
    if job.shards is not None:
        changes["shards"] = absolute_uri(job.shards)
    if job.data.tokenizer is not None:
        changes["data.tokenizer"] = absolute_uri(job.data.tokenizer)
    for name in ("questions", "answers"):
        if (uri := getattr(job.task, name)) is not None:
            changes[f"task.{name}"] = absolute_uri(uri)
    if job.weighting.features is not None:
        changes["weighting.features"] = absolute_uri(job.weighting.features)
    for name in ("features", "exclude"):
        if (uri := getattr(job.data, name)) is not None:
            changes[f"data.{name}"] = absolute_uri(uri)
    for name in ("caption_tables", "classes"):
        if uris := getattr(job.data, name):
            changes[f"data.{name}"] = [absolute_uri(uri) for uri in uris]
    if job.model.pretrained is not None:
        prefix = prefix_of(job.model.pretrained)
        source = job.model.pretrained.removeprefix(prefix)
        if Path(source).exists():  # else a hub id or a URI
            changes["model.pretrained"] = prefix + absolute_uri(source)
    return with_overrides(job, changes)
