"""One training run of the comparison: the product's own step and loop, fed from memory."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mama_ray.data.batch import ClipBatch
from mama_ray.data.questions.plan import QuestionPlanConfig
from mama_ray.data.tokenizer import Tokenizer, WordPieceTokenizer
from mama_ray.models.asking import asks_like, give_answers
from mama_ray.models.heads.head import build_head
from mama_ray.models.heads.headed import feature_dim
from mama_ray.models.heads.settings import HeadConfig
from mama_ray.models.pretrained import from_preset, preset
from mama_ray.objectives.objective import TrainingObjective
from mama_ray.objectives.question_answering import ANSWER, AnsweringObjective
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.loop import StepRecord, train
from mama_ray.training.settings import OptimConfig
from mama_ray.training.state import TrainState, build_state
from mama_ray.weighting.settings import InnerStepConfig, MetaConfig, WeightingConfig
from question_cases.data import SPLITS, AskedCorpus, Reader

_EVALUATION_BATCH = 250


@dataclass(frozen=True)
class Model:
    """A model and the recipe that it is trained by, the same for all methods, seeing or blind."""

    preset: str
    tokenizer: type[Tokenizer]
    head: HeadConfig | None
    lr: float
    num_steps: int
    questions_per_clip: int | None

    @property
    def num_frames(self) -> int:
        """Frames that a clip is decoded into."""
        return preset(self.preset).num_frames


_HEAD = HeadConfig(kind="classification", hidden_dim=256, dropout=0.1)
MODELS = {
    "clip_vip": Model("tiny", Tokenizer, _HEAD, 1e-3, 1500, 1),
    "violet": Model("violet_tiny", WordPieceTokenizer, None, 1e-3, 1600, 1),
}
_UNIFORM = WeightingConfig(kind="uniform")


@dataclass(frozen=True)
class Method:
    """What is different between two runs of a model on the same data."""

    weighting: WeightingConfig = _UNIFORM
    margin: float = 0.0
    has_contrast: bool = True

    @property
    def is_learned(self) -> bool:
        """Whether it has a meta step."""
        return self.weighting.kind == "learned"


def learned(term: Literal["sum", "task", "each"]) -> Method:
    """Learned weights on the sum of both losses, on the answer's, or on each."""
    return Method(weighting=WeightingConfig(kind="learned", weighted_term=term))


METHODS = {
    "uniform": Method(),
    "margin": Method(margin=0.05),
    "learned": learned("sum"),
    "learned_task": learned("task"),
    "mama": replace(learned("sum"), margin=0.05),
    "task_alone": Method(has_contrast=False),
}


@dataclass(frozen=True)
class MetaSizes:
    """How a run with learned weights learns them."""

    batch_size: int
    lr: float
    every: int = 2
    inner_lr: float = 0.05


@dataclass(frozen=True)
class Sizes:
    """How long and on how much a run learns."""

    num_steps: int
    batch_size: int
    meta: MetaSizes


def run_case(corpus: AskedCorpus, model: Model, method: Method, sizes: Sizes, *, seed: int, sees: bool) -> dict:
    """Train from scratch and return accuracies on test, by type, and what the weights did."""
    torch.manual_seed(seed)
    state = start(corpus, model, method, sizes, seed=seed)
    ask = asks_like(state.model.model_type, corpus.tokenizer, has_own_head=model.head is None)
    pad_id = corpus.tokenizer.pad_id
    readers = {split: Reader(corpus.assembler(split, ask), pad_id, sees) for split in SPLITS}
    observer = Observer(state, len(corpus.is_swapped))
    batches = readers["train"].stream(
        sizes.batch_size, QuestionPlanConfig(seed=seed, questions_per_clip=model.questions_per_clip)
    )
    metas = readers["meta"].stream(
        sizes.meta.batch_size, QuestionPlanConfig(seed=seed, questions_per_clip=1), is_sorted=True
    )
    train(state, batches, metas, report=observer)
    found = {"accuracy": accuracies(state, readers["test"]), "losses": observer.losses()}
    if state.weighted_step.is_learned and corpus.is_swapped.any():
        found["auc"] = observer.aucs(corpus.is_swapped)
    return found


def start(corpus: AskedCorpus, model: Model, method: Method, sizes: Sizes, *, seed: int) -> TrainState:
    """Build a new model with its head, optimiser and weighting."""
    tokenizer = corpus.tokenizer
    vocabulary = {"vocab_size": tokenizer.vocab_size, "context_length": tokenizer.context_length}
    encoder = from_preset(model.preset, vocabulary)
    give_answers(encoder, corpus.answers.answers, tokenizer)
    head = None if model.head is None else build_head(model.head, feature_dim(encoder), len(corpus.answers))
    task = WatchedAnswers()
    state = build_state(
        encoder,
        objective=ContrastiveConfig(margin=method.margin),
        weighting=method.weighting,
        meta=MetaConfig(
            meta_every=sizes.meta.every,
            batch_size=sizes.meta.batch_size,
            lr=sizes.meta.lr,
            inner=InnerStepConfig(lr=sizes.meta.inner_lr),
        ),
        optim=OptimConfig(lr=model.lr),
        num_steps=sizes.num_steps,
        global_batch_size=sizes.batch_size,
        seed=seed,
        task=task,
        head=head,
    )
    if not method.has_contrast:
        state.weighted_step.objective = TrainingObjective(_no_contrast, task)
    return state


def _no_contrast(outputs: Any, batch: ClipBatch) -> Tensor:
    return outputs.text.new_zeros(len(batch))


@torch.no_grad()
def accuracies(state: TrainState, reader: Reader) -> dict[str, float]:
    """Return the share of right answers in percent, of all questions and by type."""
    model = state.feature_model.eval()
    pairs = reader.assembler.pairs
    right = []
    for start_row in range(0, len(pairs), _EVALUATION_BATCH):
        batch = reader.batch(np.arange(start_row, min(start_row + _EVALUATION_BATCH, len(pairs))))
        right.append((model(batch).answer_logits.argmax(dim=1) == batch.targets[ANSWER]).numpy())
    is_right, types = np.concatenate(right), np.array(pairs["type"].to_pylist())
    kinds = dict.fromkeys(types.tolist())
    return {"all": 100 * float(is_right.mean())} | {kind: 100 * float(is_right[types == kind].mean()) for kind in kinds}


@dataclass
class WatchedAnswers:
    """The loss of answers, which keeps what a step's first pass found, the one over its training batch."""

    _first: Tensor | None = None

    def __call__(self, outputs: Any, batch: ClipBatch) -> Tensor:
        losses = AnsweringObjective()(outputs, batch)
        if self._first is None:
            self._first = losses.detach()
        return losses

    def take(self) -> Tensor:
        """Return them, and wait for the next step's."""
        losses, self._first = self._first, None
        assert losses is not None
        return losses


@dataclass
class Observer:
    """Keeps, for each quarter of a run, the mean loss and how much each training pair weighed: its answer's loss where
    that has a weight of its own, else the sum of both losses."""

    state: TrainState
    num_pairs: int
    _sums: np.ndarray = field(init=False)
    _counts: np.ndarray = field(init=False)
    _losses: list[list[float]] = field(init=False)

    def __post_init__(self) -> None:
        self._sums, self._counts = np.zeros((2, 4, self.num_pairs))
        self._losses = [[] for _ in range(4)]

    def __call__(self, record: StepRecord) -> None:
        """Take a step's record in; weights are as multiples of the mean one."""
        quarter = min(3, 4 * record.step // self.state.num_steps)
        is_pair = record.rows.numpy() >= 0
        rows, weights = record.rows.numpy()[is_pair], self._weights(record)[is_pair]
        np.add.at(self._sums[quarter], rows, weights / max(weights.mean(), 1e-12))
        np.add.at(self._counts[quarter], rows, 1)
        self._losses[quarter].append(float(record.losses.numpy()[is_pair].mean()))

    @torch.no_grad()
    def _weights(self, record: StepRecord) -> np.ndarray:
        step = self.state.weighted_step
        assert isinstance(step.objective, TrainingObjective) and isinstance(step.objective.task, WatchedAnswers)
        losses = step.objective.task.take()
        if step.weighting_config.weighted_term in ("task", "each"):
            return self.state.weighting(losses).numpy()
        return record.weights.numpy()

    def losses(self) -> list[float]:
        """Return the mean loss of each quarter."""
        return [float(np.mean(losses)) if losses else float("nan") for losses in self._losses]

    def aucs(self, is_swapped: np.ndarray) -> list[float]:
        """Return, of each quarter, how often a pair whose answer was swapped weighs less than one whose was not."""
        found = []
        for sums, counts in zip(self._sums, self._counts, strict=True):
            seen = counts > 0
            found.append(roc_auc(-sums[seen] / counts[seen], is_swapped[seen]))
        return found


def roc_auc(scores: np.ndarray, is_positive: np.ndarray) -> float:
    """Return the area under the ROC curve: how often a positive scores higher than a negative, ties counted half."""
    order = np.sort(scores[~is_positive])
    positives = scores[is_positive]
    if not len(order) or not len(positives):
        return float("nan")
    below, up_to = np.searchsorted(order, positives, "left"), np.searchsorted(order, positives, "right")
    return float((below + up_to).mean() / 2 / len(order))
