"""The seam for a task loss: the model's outputs and the batch in, one loss per clip out, so that it can be weighted.

`weighting/` sees losses alone. A loss may couple clips, of all ranks too (`gather.py`), and must be differentiable
forwards and backwards. What it reads beside frames and tokens is in `ClipBatch.targets`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import (
    Annotated,
    Any,
    NamedTuple,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

import torch
from jaxtyping import Float
from torch import Tensor

from mama_ray.data.batch import ClipBatch
from mama_ray.data.classes.names import HAS_GENERATED, IS_GENERATED
from mama_ray.objectives.contrastive import (
    combine_losses,
    compute_contrastive_directions,
    compute_contrastive_losses,
    contrastive_margin_slopes,
)
from mama_ray.objectives.ranking import compute_ranking_directions, compute_ranking_losses
from mama_ray.objectives.relevance import pair_classes
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.objectives.sigmoid import compute_sigmoid_directions, compute_sigmoid_losses, sigmoid_margin_slopes

MARGIN = "margin"
"""The target that has an angular margin for each sample, in the place of the config's."""
SHARE = "generated_share"
"""The target that has the share of the generated caption in each sample's loss, in the place of the config's."""
_T = TypeVar("_T")
_SHARED = "shared"
Shared = Annotated[_T, _SHARED]
"""Marks an output that all clips of a batch have in common; every other has the clip as axis 0 and splits with it."""


@runtime_checkable
class Outputs(Protocol):
    """What a step has of its model: a NamedTuple of floating tensors, of which these are the first.

    A model with a head has a NamedTuple of its own with further fields.
    """

    @property
    def video(self) -> Float[Tensor, "local dim"]:
        """Unit-norm features of this rank's clips."""

    @property
    def text(self) -> Float[Tensor, "local dim"]:
        """Unit-norm features of their texts."""

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """The scale of their similarity, in log form."""

    @property
    def logit_bias(self) -> Float[Tensor, ""]:
        """What the sigmoid loss adds to a scaled similarity; 0 where there is none."""

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the tensors in order."""


class Features(NamedTuple):
    """The outputs of a dual encoder without a head."""

    video: Float[Tensor, "local dim"]
    text: Float[Tensor, "local dim"]
    logit_scale: Shared[Float[Tensor, ""]]
    logit_bias: Shared[Float[Tensor, ""]]


class PairedFeatures(NamedTuple):
    """Those of clips that are learned from by two texts: their own, and a generated one (`ClipBatch.generated_ids`)."""

    video: Float[Tensor, "local dim"]
    text: Float[Tensor, "local dim"]
    logit_scale: Shared[Float[Tensor, ""]]
    logit_bias: Shared[Float[Tensor, ""]]
    generated: Float[Tensor, "local dim"]


OutputsT = TypeVar("OutputsT", bound=Outputs)


@runtime_checkable
class Objective(Protocol):
    """A loss of a batch, clip by clip.

    It has no layers of its own: what has parameters belongs to the model, whose linear layers are recorded for the
    directional pass. A head's outputs are fields beside those of `Features`.
    """

    def __call__(self, outputs: Any, batch: ClipBatch) -> Float[Tensor, " local"]:
        """Return the losses of this rank's clips, in float32 at least; finite where a clip is not valid.

        `outputs` are `Outputs`, with the fields that the loss asks for.
        """


@dataclass(frozen=True)
class ContrastiveObjective:
    """contrastive_i: every clip against the texts of all ranks, and the other way round.

    Of `PairedFeatures` it is (1 - g_i) own_i + g_i generated_i, with g_i = 0 of a clip without a generated caption.
    own_i is the loss among the clips' own texts; generated_i that among as many texts, a clip's generated caption or,
    where it has none, its own: either has the same number of negatives.
    """

    config: ContrastiveConfig

    def __call__(self, outputs: Outputs, batch: ClipBatch) -> Float[Tensor, " local"]:
        return self._take(compute_ranking_losses, compute_sigmoid_losses, compute_contrastive_losses, outputs, batch)

    def directions(self, outputs: Outputs, batch: ClipBatch) -> tuple[Float[Tensor, " local"], Float[Tensor, " local"]]:
        """Return the losses video to text and text to video apart; of a clip that is not valid they mean nothing."""
        return self._take(
            compute_ranking_directions, compute_sigmoid_directions, compute_contrastive_directions, outputs, batch
        )

    def margin_slopes(self, outputs: Outputs, batch: ClipBatch) -> Float[Tensor, " local"]:
        """Return d contrastive_i / d margin_i, where the samples have margins of their own (targets MARGIN)."""
        return self._take(_no_margin, sigmoid_margin_slopes, contrastive_margin_slopes, outputs, batch)

    def apart(
        self, outputs: PairedFeatures, batch: ClipBatch
    ) -> tuple[Float[Tensor, " local"], Float[Tensor, " local"]]:
        """Return own_i and generated_i; of a clip without a generated caption own_i twice."""
        losses = compute_ranking_losses, compute_sigmoid_losses, compute_contrastive_losses
        own, generated = (self._of_texts(*losses, texts, outputs, batch) for texts in (outputs.text, outputs.generated))
        return own, torch.where(batch.targets[HAS_GENERATED], generated, own)

    def shares(self, batch: ClipBatch) -> Float[Tensor, " local"]:
        """Return g_i, 0 of a clip without a generated caption."""
        has_generated = batch.targets[HAS_GENERATED]
        if SHARE in batch.targets:
            return batch.targets[SHARE] * has_generated
        assert isinstance(self.config.generated_share, float), "learned shares are a batch's targets"
        return self.config.generated_share * has_generated.double()

    def _take(self, ranking: Callable, sigmoid: Callable, softmax: Callable, outputs: Outputs, batch: ClipBatch) -> Any:
        own = self._of_texts(ranking, sigmoid, softmax, outputs.text, outputs, batch)
        if not isinstance(outputs, PairedFeatures):
            return own
        generated = self._of_texts(ranking, sigmoid, softmax, outputs.generated, outputs, batch)
        share = self.shares(batch)
        if isinstance(own, tuple):
            return tuple(_mix(*pair, share) for pair in zip(own, generated, strict=True))
        return _mix(own, generated, share)

    def _of_texts(
        self,
        ranking: Callable,
        sigmoid: Callable,
        softmax: Callable,
        texts: Tensor,
        outputs: Outputs,
        batch: ClipBatch,
    ) -> Any:
        known = {"valid": batch.valid, "clips": batch.clips}
        if self.config.ranks_by_cosine:
            classes = pair_classes(batch.targets) if self.config.needs_classes else None
            return ranking(outputs.video, texts, self.config, classes=classes, **known)
        if MARGIN in batch.targets:
            known["margins"] = batch.targets[MARGIN]
        if self.config.loss == "sigmoid":
            scale_and_bias = outputs.logit_scale, outputs.logit_bias
            return sigmoid(outputs.video, texts, *scale_and_bias, self.config, **known)
        if self.config.generated_scale is not None:
            known["is_generated"] = batch.targets[IS_GENERATED]
        return softmax(outputs.video, texts, outputs.logit_scale, self.config, **known)


def _mix(own: Tensor, generated: Tensor, share: Tensor) -> Tensor:
    share = share.to(own.dtype)
    return (1.0 - share) * own + share * generated


def _no_margin(*_: Any, **__: Any) -> Tensor:
    raise AssertionError("losses that rank by cosines have no angular margin")


@dataclass(frozen=True)
class NoContrast:
    """contrastive_i = 0 of every clip, whose captions nobody reads: for what is learned by its task alone."""

    def __call__(self, outputs: Outputs, batch: ClipBatch) -> Float[Tensor, " local"]:
        dtype = torch.promote_types(outputs.video.dtype, torch.float32)
        return outputs.video.new_zeros(len(batch), dtype=dtype)


@dataclass(frozen=True)
class TrainingObjective:
    """L_i = contrastive_i + eta * task_i, 0 for a clip that is not valid; contrastive_i alone without a task."""

    contrastive: Objective
    task: Objective | None = None
    eta: float = 1.0

    @property
    def has_task(self) -> bool:
        """Whether a task has a say; with eta 0 its loss is not taken at all."""
        return self.task is not None and self.eta != 0

    def __call__(self, outputs: Outputs, batch: ClipBatch) -> Float[Tensor, " local"]:
        return combine_losses(*self._losses(outputs, batch), self.eta)

    def terms(self, outputs: Outputs, batch: ClipBatch) -> tuple[Float[Tensor, " local"], Float[Tensor, " local"]]:
        """Return contrastive_i and eta * task_i, whose sum is the loss; for an objective that has a task."""
        contrastive, task = self._losses(outputs, batch)
        assert task is not None
        return contrastive, self.eta * task

    def _losses(self, outputs: Outputs, batch: ClipBatch) -> tuple[Tensor, Tensor | None]:
        task = None
        if self.task is not None and self.has_task:
            task = self.task(outputs, batch).masked_fill(~batch.valid, 0.0)
        return self.contrastive(outputs, batch), task


def split_outputs(outputs: OutputsT, sizes: Sequence[int]) -> list[OutputsT]:
    """Split gradients at outputs into those of a batch's parts.

    A shared output's gradient goes to the last part, zero to the others: it goes back once.
    """
    columns = []
    for value, is_shared in zip(outputs, which_are_shared(type(outputs)), strict=True):
        if is_shared:
            columns.append([torch.zeros_like(value)] * (len(sizes) - 1) + [value])
        else:
            columns.append(value.split(list(sizes)))
    return [remake(outputs, part) for part in zip(*columns, strict=True)]


def join_outputs(parts: Sequence[OutputsT]) -> OutputsT:
    """Join the outputs of a batch's parts; a shared one is that of the first."""
    if len(parts) == 1:
        return parts[0]
    columns = zip(zip(*parts, strict=True), which_are_shared(type(parts[0])), strict=True)
    return remake(parts[0], (values[0] if is_shared else torch.cat(values) for values, is_shared in columns))


def remake(outputs: OutputsT, tensors: Iterable[Tensor]) -> OutputsT:
    """Return outputs of the same kind with other tensors."""
    return type(outputs)(*tensors)


@cache
def which_are_shared(kind: type) -> tuple[bool, ...]:
    """Tell of each output whether all clips have it in common."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple(get_origin(hint) is Annotated and _SHARED in get_args(hint) for hint in hints.values())


@cache
def which_are_texts(kind: type) -> tuple[bool, ...]:
    """Tell of each output whether it is features of texts."""
    return tuple(name in ("text", "generated") for name in get_type_hints(kind))
