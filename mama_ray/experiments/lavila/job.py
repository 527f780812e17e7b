"""What the steps of LaViLa are asked for."""

from pydantic import Field, model_validator

from mama_ray.captioning.engines.generation import SamplingConfig
from mama_ray.captioning.narrator.settings import FrameInput, GatedModelConfig, NarratorModelConfig
from mama_ray.captioning.rephrasing.settings import DecodingConfig, WordingConfig
from mama_ray.config import Config
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.orchestration.captioning.job import CaptionJob
from mama_ray.orchestration.narrator.job import NarratorJob
from mama_ray.orchestration.training.job import ModelConfig, TrainJob
from mama_ray.training.settings import OptimConfig
from mama_ray.weighting.settings import WeightingConfig

BASELINE = "baseline"
# People told something of one clip in five; the others have no text until a narrator writes one.
NARRATED_CORPUS = CorpusConfig(
    texts="first_person",
    num_train=6000,
    num_rephrased=0,
    num_generated=0,
    swapped_rate=0,
    wrong_rate=0,
    incomplete_rate=0,
)
# A small one that sees each clip a dozen times: no dropout, gates that are open, whole frames, as captions tell sizes.
_SMALL_NARRATOR = GatedModelConfig(
    trains="all",
    gates=1.0,
    video_encoder=BASELINE,
    sizes={f"language.{part}_dropout": 0.0 for part in ("embedding", "attention", "residual")},
)


class LavilaJob(Config):
    """A baseline, a narrator, its texts, paraphrases, and dual encoders that learn from ever more of these."""

    storage: str = "runs"
    """Folder or URI under which corpus, runs and tables are kept."""

    name: str = Field("lavila", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=150)
    """First part of the runs' names, and the folder of tables and report."""

    shards: str | None = None
    """Folder or URI of shards of whose train clips some have human captions; null makes the embedded corpus below."""

    corpus: CorpusConfig = NARRATED_CORPUS
    """The embedded corpus, where `shards` is null: clips of which people told one in five."""

    benchmark: str = "embedded"
    """Name of a file in configs/benchmark, or a path: the retrieval that every dual encoder is measured by, once."""

    train: TrainJob = TrainJob(
        model=ModelConfig(preset="tsf_tiny"),
        optim=OptimConfig(lr=1e-3),
        weighting=WeightingConfig(kind="uniform"),
        num_epochs=12.0,
        checkpoint_every=500,
    )
    """What the dual encoders share; they differ in data.shares alone. num_epochs is of all train clips, with a text or
    without: each dual encoder takes as many steps as that gives. Its shards, storage and run are not used."""

    narrator: NarratorJob = NarratorJob(
        model=NarratorModelConfig(preset="gated_tiny", gated=_SMALL_NARRATOR),
        frames=FrameInput(resize="center_crop"),
        optim=OptimConfig(lr=1e-3),
        num_epochs=12.0,
    )
    """How the narrator learns from the human pairs. model.gated.video_encoder `baseline` is the dual encoder of the
    first step, as LaViLa has it. Its shards, storage and run are not used."""

    caption: CaptionJob = CaptionJob(
        split="train", sampling=SamplingConfig(num_captions=2, temperature=0.7, top_p=0.95)
    )
    """How the clips are narrated, those with human captions and those without. Its model, shards and output are not
    used."""

    rephraser: str | None = None
    """Folder, URI or hub id of a T5 or of an instruct model; null teaches a small T5 the grammar of the embedded
    corpus, on sentences of another corpus, and leaves the step out on other shards."""

    decoding: DecodingConfig = DecodingConfig(num_beams=8, num_groups=4)
    """How paraphrases are found and how many are kept."""

    wording: WordingConfig = WordingConfig(remove_punctuation=False)
    """How a model's words become a paraphrase."""

    @model_validator(mode="after")
    def _captions_are_of_train(self) -> "LavilaJob":
        if self.caption.split not in (None, "train"):
            raise ValueError(f"caption.split {self.caption.split}: dual encoders learn from captions of train")
        if self.train.data.shares is not None or self.train.data.captions is not None:
            raise ValueError("train.data.shares and train.data.captions are what the steps differ in: leave them out")
        return self
