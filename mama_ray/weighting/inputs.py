"""What the weight net sees of every clip of a global batch: losses, cosine, an average over visits, columns.

A table (global, inputs) with a column per input, a category as its value's place. They are constants: the derivative of
a weight goes to the net's parameters alone, so the hypergradient has nothing new. All ranks gather the same table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mama_ray.data.batch import ClipBatch
from mama_ray.errors import UserError
from mama_ray.objectives.contrastive import at_least_float32
from mama_ray.objectives.gather import gather_plain
from mama_ray.objectives.objective import Outputs
from mama_ray.weighting.settings import LOSSES, WeightingConfig

Directions = Callable[[Outputs, ClipBatch], tuple[Float[Tensor, " local"], Float[Tensor, " local"]]]
MAX_AVERAGED = 1 << 27  # clips: 0.5 GiB of every worker, and of every checkpoint
_DIRECTIONS = ("loss_video_to_text", "loss_text_to_video")


@dataclass(frozen=True)
class WeightInput:
    """One input of the net: a number, standardised over the global batch or not, or a category of `values`."""

    name: str
    is_standardised: bool = False
    values: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Numbers that the net has of it: of a category one for each value, and one for all others."""
        return len(self.values) + 1 if self.values else 1

    def encode(
        self, column: Float[Tensor, "batch"], reference: Float[Tensor, "others"]
    ) -> Float[Tensor, "batch width"]:
        """Return what the net reads; `reference` is the column that a number is standardised by.

        A number that is not known (NaN) is the mean; a value that is not known is of the class of all others.
        """
        if self.values:
            is_known = (column >= 0) & (column < len(self.values))
            places = torch.where(is_known, column, torch.full_like(column, len(self.values))).long()
            return torch.nn.functional.one_hot(places, self.width).to(column.dtype)
        if self.is_standardised:
            known = reference[~reference.isnan()]
            known = known if len(known) else known.new_zeros(1)
            column = (column - known.mean()) / (known.std(correction=0) + 1e-6)
        return column.nan_to_num(nan=0.0)[:, None]


def describe_inputs(config: WeightingConfig) -> tuple[WeightInput, ...]:
    """Return the net's inputs in order; () where it sees the loss alone."""
    if not config.sees_more:
        return ()
    return tuple(
        WeightInput(
            name,
            is_standardised=config.standardise if name in LOSSES else name not in config.categories,
            values=config.categories.get(name, ()),
        )
        for name in config.inputs
    )


class AverageLoss:
    """A moving average of every sample's loss over its visits: float32, one number per sample, the same on all ranks.

    Its start is the first visit's loss. Where a batch has a sample several times the last one counts.
    """

    def __init__(self, num_samples: int, decay: float, device: torch.device | str = "cpu"):
        if num_samples > MAX_AVERAGED:
            raise UserError(
                "weighting.inputs average_loss keeps 4 bytes per clip on every worker and in every checkpoint",
                got=f"{num_samples:,} clips",
                wanted=f"at most {MAX_AVERAGED:,}",
                remedy="leave average_loss out",
            )
        self._decay = decay
        # One place more, for padding, for what could not be read, and for visits that do not count.
        self._averages = torch.full((num_samples + 1,), torch.nan, device=device)

    def visit_(
        self, rows: Int[Tensor, "global"], losses: Float[Tensor, "global"], valid: Bool[Tensor, "global"]
    ) -> Float[Tensor, "global"]:
        """Take a global batch's losses in; returns the averages of its samples, this visit among them."""
        nowhere = len(self._averages) - 1
        if (highest := int(torch.where(valid, rows, -1).max())) >= nowhere:
            raise ValueError(f"row {highest} of a batch, where average_loss has {nowhere} samples")
        places = torch.where(valid, rows, nowhere)
        ordered, order = places.sort(stable=True)
        is_last = torch.ones_like(valid)
        is_last[:-1] = ordered[1:] != ordered[:-1]
        before, new = self._averages[ordered], losses[order].float()
        after = torch.where(before.isnan(), new, self._decay * before + (1 - self._decay) * new)
        self._averages[torch.where(is_last, ordered, nowhere)] = after
        self._averages[nowhere] = torch.nan
        return self._averages[places].to(losses.dtype)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages, NaN of a sample without a visit."""
        return {"average_loss": self._averages[:-1]}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from saved averages; ValueError where they are of other samples."""
        saved = state["average_loss"]
        if saved.shape != self._averages[:-1].shape:
            raise ValueError(f"average_loss is of {len(saved)} samples, not of {len(self._averages) - 1}")
        self._averages[:-1].copy_(saved)


class ClipInputs:
    """Makes the table of inputs of a step's global batch; has no state but the averages, if asked for."""

    def __init__(
        self,
        config: WeightingConfig,
        *,
        directions: Directions | None,
        num_samples: int | None,
        device: torch.device | str,
    ):
        self._names, self._columns, self._directions = config.inputs, config.columns, directions
        if directions is None and set(_DIRECTIONS) & set(config.inputs):
            raise UserError(
                "weighting.inputs asks for a direction of the contrast",
                got="task.contrast false",
                wanted="a contrastive loss, or other inputs",
            )
        self.average: AverageLoss | None = None
        if "average_loss" in config.inputs:
            if num_samples is None:
                raise ValueError("average_loss: say of how many samples (num_samples)")
            self.average = AverageLoss(num_samples, config.average_decay, device)

    @torch.no_grad()
    def gather(
        self, outputs: Outputs, batch: ClipBatch, losses: Float[Tensor, "global"], valid: Bool[Tensor, "global"]
    ) -> Float[Tensor, "global inputs"]:
        """Return the inputs of all ranks' clips, whose gathered `losses` are given; takes the losses into the averages.

        What is not valid has any numbers.
        """
        own = self._of_this_rank(outputs, batch)
        found = {"loss": losses}
        if own:
            table = gather_plain(torch.stack([column.to(losses.dtype) for column in own.values()], dim=1))
            found |= dict(zip(own, table.unbind(1), strict=True))
        if self.average is not None:
            found["average_loss"] = self.average.visit_(gather_plain(batch.rows), losses, valid)
        return torch.stack([found[name] for name in self._names], dim=1)

    def _of_this_rank(self, outputs: Outputs, batch: ClipBatch) -> dict[str, Tensor]:
        own: dict[str, Tensor] = {}
        if set(_DIRECTIONS) & set(self._names):
            assert self._directions is not None
            own |= dict(zip(_DIRECTIONS, self._directions(outputs, batch), strict=True))
        if "cosine" in self._names:
            own["cosine"] = (at_least_float32(outputs.video) * at_least_float32(outputs.text)).sum(dim=-1)
        if self._columns:
            columns = batch.weight_inputs
            if columns is None or columns.shape[1] != len(self._columns):
                got = "none" if columns is None else columns.shape[1]
                raise ValueError(f"weight_inputs of a batch: got {got}, wanted columns {', '.join(self._columns)}")
            own |= dict(zip(self._columns, columns.unbind(1), strict=True))
        return {name: column for name, column in own.items() if name in self._names}
