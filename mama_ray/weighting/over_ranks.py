"""Sums and means over ranks of what a step sees, each in one collective."""

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor

from mama_ray.data.batch import PADDING_ROW, ClipBatch
from mama_ray.objectives.gather import gather_plain, world_size


def all_reduce(tensors: list[Tensor]) -> list[Tensor]:
    """Sum a list of tensors over ranks in one collective."""
    if world_size() == 1:
        return tensors
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def gather_with_validity(
    losses: Tensor, batch: ClipBatch, num_losses: int = 1
) -> tuple[Float[Tensor, "global"], Bool[Tensor, "global"], Bool[Tensor, "global"]]:
    """Return the losses of all ranks, which are of valid clips, and which of padding."""
    standing = batch.valid.to(losses.dtype) - (batch.rows == PADDING_ROW).to(losses.dtype)
    gathered = gather_plain(torch.stack([losses.detach(), standing.repeat(num_losses)], dim=1))
    return gathered[:, 0], gathered[:, 1] > 0, gathered[:, 1] < 0


def mean_terms(terms: tuple[Tensor, ...], batch: ClipBatch) -> dict[str, Tensor]:
    """Return the means of contrastive and task losses over all ranks' valid clips."""
    sums = torch.stack([*(term.detach().sum() for term in terms), batch.valid.sum().to(terms[0].dtype)])
    contrastive, task, num_valid = gather_plain(sums[None]).sum(0).unbind()
    num_valid = num_valid.clamp(min=1)
    return {"train/contrastive_loss": contrastive / num_valid, "train/task_loss": task / num_valid}


def mean_over_ranks(losses: Tensor, batch: ClipBatch) -> Tensor:
    """Return the mean of all ranks' losses over their valid clips."""
    losses, valid, _ = gather_with_validity(losses, batch)
    return losses.sum() / valid.sum().clamp(min=1)
