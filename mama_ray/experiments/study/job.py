"""What a controlled study is asked for."""

from typing import Any, Literal

from pydantic import Field, model_validator

from mama_ray.config import AddedLater, Config
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.experiments.study.cell import CellConfig
from mama_ray.experiments.study.plan import ExperimentConfig
from mama_ray.orchestration.captioning.job import CaptionJob
from mama_ray.training.settings import OptimConfig


class PretrainingConfig(Config):
    """The pretraining."""

    corpus: CorpusConfig = CorpusConfig(
        domain="source",
        seed=1000,
        num_train=8000,
        num_meta=0,
        num_val=200,
        num_test=400,
        incomplete_rate=0.05,
        wrong_rate=0.02,
        swapped_rate=0.03,
        zipf_exponent=0.0,
    )
    """The clips that are learned from."""

    preset: str = "tiny"
    """Model preset."""

    size: dict[str, int] = {
        "video.width": 64,
        "video.num_layers": 2,
        "video.num_heads": 2,
        "text.width": 48,
        "text.num_layers": 2,
    }
    """Fields of the preset that are replaced, by dotted key."""

    vocab_size: int = Field(768, ge=514)
    """Tokens of the tokenizer, which is trained on captions of all domains, as CLIP's knows words that it never met."""

    words: AddedLater[Literal["domains", "all"]] = "domains"
    """Which words the tokenizer was trained on beside: those of all domains, or also labels and the colours and motions
    that topics can have for themselves."""

    context_length: int = Field(20, ge=4)
    """Tokens of a caption."""

    num_steps: int = Field(1250, ge=1)
    """Training steps."""

    batch_size: int = Field(64, ge=2)
    """Clips per step."""

    optim: OptimConfig = OptimConfig(lr=2e-3)
    """The optimiser."""

    seed: int = Field(0, ge=0)
    """Seed of the weights and of the clip order."""


class StudyJob(Config):
    """Experiments, methods and seeds."""

    storage: str = "runs/study"
    """Folder, on a disk that all nodes see, of corpora, captions and the results of single runs."""

    results: str | None = None
    """Folder of the results, a small JSON file per experiment; null is `results` in the storage."""

    report: str | None = None
    """Folder of the report page and its figures; null is `report` in the storage."""

    documents: AddedLater[tuple[str, ...]] = ()
    """Markdown files whose marked places are written anew from the results, such as README.md."""

    part: AddedLater[str] = Field("", pattern=r"^\w*$")
    """Which of the marked places are this study's: those whose name begins with this and a slash; empty is those
    without one."""

    render_only: bool = False
    """Draw the report from `results` again, without training anything."""

    pretraining: PretrainingConfig = PretrainingConfig()
    """What fine-tuning starts from."""

    cell: CellConfig = CellConfig()
    """What all runs share."""

    methods: dict[str, dict[str, Any]] = {"uniform": {}}
    """Settings by dotted key for each method."""

    tuning: dict[str, dict[str, tuple[float, ...]]] = {}
    """For each method that is tuned: the values of its settings, whose grid is tried; equally many points for all."""

    tuning_base: AddedLater[dict[str, Any]] = {}
    """Settings of the tuning's runs, by dotted key, such as tests: false."""

    tuning_widenings: AddedLater[int] = Field(0, ge=0)
    """How often at most a grid is widened by a value where its edge has won."""

    tuned_as: AddedLater[dict[str, str]] = {}
    """Methods that take over what another was tuned to, by name: learned_captions as learned."""

    tuning_seeds: tuple[int, ...] = (100, 101)
    """Seeds of the tuning."""

    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Seeds of the study: each has its own clips; methods are compared seed by seed."""

    plan: AddedLater[bool] = False
    """Only tell what would be run, and for about how long."""

    only: AddedLater[tuple[str, ...]] = ()
    """Names of the experiments that are run; empty is all of them."""

    continues_results: AddedLater[bool] = False
    """Take over from the files of `results` what they know: the tuning, and experiments that are whole. For a study
    that goes on with another storage, where no single runs are kept."""

    experiments: dict[str, ExperimentConfig] = {}
    """What is compared, in the order in which it is run."""

    captioning: dict[str, CaptionJob] = {}
    """Named ways to caption the training clips, for cells that mix generated captions in."""

    num_parallel: int | None = Field(None, ge=1)
    """Runs at a time; null is one per core of this machine, or per CPU of the cluster."""

    @property
    def asked(self) -> dict[str, ExperimentConfig]:
        """The experiments that are run."""
        return {name: one for name, one in self.experiments.items() if not self.only or name in self.only}

    def take_over(self, chosen: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return what was chosen, also for the methods that are tuned as another."""
        return chosen | {method: chosen[other] for method, other in self.tuned_as.items() if other in chosen}

    @model_validator(mode="after")
    def _is_a_study(self) -> "StudyJob":
        both = set(self.seeds) & set(self.tuning_seeds)
        if both:
            raise ValueError(f"seeds and tuning_seeds share {sorted(both)}: what is tuned on cannot be tested on")
        for method, other in self.tuned_as.items():
            if method not in self.methods or other not in self.tuning or method in self.tuning:
                raise ValueError(f"tuned_as: {method} as {other}: wanted an untuned method and a tuned one")
        for name in self.only:
            if name not in self.experiments:
                raise ValueError(f"only: got {name}, wanted some of {', '.join(self.experiments)}")
        if len(set(self.seeds)) < max(1, len(self.seeds)):
            raise ValueError(f"seeds {list(self.seeds)}: wanted one or more, all different")
        return self
