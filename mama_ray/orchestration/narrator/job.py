"""What a narrator's training is asked for."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from mama_ray.captioning.narrator.settings import FrameInput, NarratorInput, NarratorModelConfig
from mama_ray.captioning.pictures.settings import ClipGridConfig
from mama_ray.captioning.prompts import PromptConfig
from mama_ray.config import AddedLater, Config, Location, MayChange, with_overrides
from mama_ray.data.captions import check_probabilities
from mama_ray.data.plan import PlanConfig
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.orchestration.runs.settings import Precision
from mama_ray.reporting.trackers import TrackerName
from mama_ray.storage.places import absolute_uri
from mama_ray.training.settings import OptimConfig


class NarratorDataConfig(Config):
    """How clips become what a narrator learns from."""

    captions: dict[str, float] | None = {"human": 1.0}
    """Mixing probability per caption source, e.g. {human: 0.5, asr: 0.5}; clips without such a caption are left out.
    null draws evenly of a clip's."""

    max_caption_tokens: int = Field(64, ge=2)
    """Tokens of a caption, its end included; a longer one loses its tail."""

    plan: PlanConfig = PlanConfig()
    """Shuffling of clips within windows of shards."""

    decode: DecodeConfig = DecodeConfig()
    """Limits of the video decoder."""

    @field_validator("captions")
    @classmethod
    def _captions_are_drawn(cls, captions: dict[str, float] | None) -> dict[str, float] | None:
        check_probabilities(captions)
        return captions


class NarratorJob(Config):
    """One run that teaches a narrator."""

    shards: Location[str | None] = None
    """Folder or URI of shards with their index; null makes and uses the embedded corpus below."""

    corpus: CorpusConfig = CorpusConfig(
        seed=1, num_train=20000, num_captions=4, swapped_rate=0, wrong_rate=0, incomplete_rate=0, zipf_exponent=0
    )
    """The embedded corpus, where `shards` is null: clean, balanced, and of another seed than the one that jobs caption
    and train on by default, so a narrator never captions what it learned from."""

    storage: MayChange[str] = "runs"
    """Folder or URI under which runs are kept."""

    run: MayChange[str] = Field("narrator", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)
    """Name of the run; a run that exists is resumed."""

    model: NarratorModelConfig = NarratorModelConfig()
    """The narrator."""

    prompt: PromptConfig = NarratorInput().prompt
    """What a LLaVA is asked, in training and after."""

    grid: ClipGridConfig = ClipGridConfig()
    """What of a clip a LLaVA sees."""

    frames: AddedLater[FrameInput] = FrameInput()
    """What of a clip a gated narrator sees."""

    data: NarratorDataConfig = NarratorDataConfig()
    """Clips and captions."""

    optim: OptimConfig = OptimConfig()
    """The optimiser and its schedule; a pretrained LLaVA wants an lr of about 2e-5, its projector alone 1e-3, LaViLa's
    gated narrator a constant 3e-5."""

    num_epochs: float = Field(5.0, gt=0)
    """Passes over the captioned training clips; a fraction is fine."""

    global_batch_size: int = Field(32, ge=1)
    """Clips per step over all workers."""

    num_micro_batches: MayChange[int] = Field(1, ge=1)
    """Parts a worker's batch is taken in; the gradient is that of the whole batch, the memory that of a part."""

    num_workers: MayChange[int] = Field(2, ge=1)
    """Ray Train workers (DDP ranks)."""

    cpus_per_worker: MayChange[float] = Field(1.0, gt=0)
    """CPUs of a train worker; decode tasks use what is left."""

    use_gpu: MayChange[bool] = False
    """Give each worker a GPU (nccl); else CPU (gloo)."""

    precision: Precision = "auto"
    """Autocast of the model; auto is bfloat16 on a GPU and float32 on a CPU. A LLaVA's parts that do not train are then
    kept in bfloat16 too; the loss is float32 always."""

    model_dtype: MayChange[Literal["float32", "bfloat16"]] = "bfloat16"
    """Type of the weights in the final model folder; checkpoints keep what training needs."""

    seed: int = Field(0, ge=0)
    """Seed of initial weights, clip order and caption choice."""

    log_every: MayChange[int] = Field(20, ge=1)
    """Steps between two records of metrics.jsonl."""

    checkpoint_every: MayChange[int] = Field(500, ge=1)
    """Steps between two checkpoints; each is preceded by validation, and the last step has one too."""

    num_val_clips: int = Field(200, ge=0)
    """Clips of the val split that validation takes at most, evenly spread over it."""

    val_every: AddedLater[int | None] = Field(None, ge=1)
    """Takes every N-th clip of the val split instead, from the first on, however many these are: LaViLa's --eval-freq.
    CIDEr-D of two such subsets cannot be compared."""

    val_captions: MayChange[bool] = True
    """Let validation write captions of these clips and score them against those of people: BLEU, ROUGE-L, CIDEr-D."""

    num_checkpoints_to_keep: MayChange[int] = Field(2, ge=1)
    """Newest checkpoints kept; the best one by validation is always kept beside them."""

    trackers: MayChange[tuple[TrackerName, ...]] = ()
    """Experiment trackers that get the metrics too: mlflow, wandb. Where they are is said by their own environment
    variables."""

    max_failures: MayChange[int] = Field(3, ge=-1)
    """Worker crashes survived before the job fails; -1 is any number."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> "NarratorJob":
        parts = self.num_workers * self.num_micro_batches
        if self.global_batch_size % parts:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not a multiple of "
                f"num_workers x num_micro_batches = {parts}"
            )
        if self.optim.ema_decay:
            raise ValueError("optim.ema_decay: a narrator's run keeps no moving average")
        if self.val_every is not None and self.num_val_clips != type(self).model_fields["num_val_clips"].default:
            raise ValueError("num_val_clips and val_every both say which clips of val are taken: give one")
        return self


def with_absolute_paths(job: NarratorJob) -> NarratorJob:
    """Name every place so that workers, whose working directory is another, find it too."""
    changes = {"storage": absolute_uri(job.storage)}
    if job.shards is not None:
        changes["shards"] = absolute_uri(job.shards)
    for name, source in sources_of(job.model).items():
        if Path(source).exists():  # else a hub id or a URI
            changes[f"model.{name}"] = absolute_uri(source)
    return with_overrides(job, changes)


def sources_of(model: NarratorModelConfig) -> dict[str, str]:
    """Return where weights that training starts from are, by the name of the setting."""
    sources = {
        "pretrained": model.pretrained,
        "gated.video_encoder": model.gated.video_encoder,
        "gated.language_model": model.gated.language_model,
    }
    return {name: source for name, source in sources.items() if source is not None}
