"""Feature gathering across ranks, with gradient, with tangents, and twice differentiable.

`torch.distributed`'s collectives carry neither gradients nor forward-mode tangents. Here the adjoint of the gather is a
reduce-scatter and the adjoint of that is the gather again, so any order of reverse mode works, and primal and tangent
are gathered side by side in forward mode.
"""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad


def world_size() -> int:
    """Return the number of ranks, 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's rank, 0 outside a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gather_plain(local: Tensor) -> Tensor:
    """Concatenate equal-sized tensors of all ranks along axis 0, without gradient."""
    if world_size() == 1:
        return local
    parts = [torch.empty_like(local, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, local.detach().contiguous())
    return torch.cat(parts)


def gather_with_gradient(local: Float[Tensor, "local dim"]) -> Float[Tensor, "global dim"]:
    """Concatenate the rows of all ranks in rank order; every rank must hold equally many.

    Gradients of all ranks' losses flow back to the rank that owns a row (summed), as open_clip's gather-with-grad does;
    forward-mode tangents are gathered with their primals.
    """
    if world_size() == 1:
        return local
    primal, tangent = forward_ad.unpack_dual(local)  # no tangent outside a dual level
    if tangent is not None:
        return forward_ad.make_dual(gather_plain(primal), gather_plain(tangent))
    return _Gather.apply(local)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, local: Tensor) -> Tensor:
        return gather_plain(local)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        return _ReduceScatter.apply(*gradients)


class _ReduceScatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, everything: Tensor) -> Tensor:
        everything = everything.contiguous()
        num_rows = everything.shape[0] // world_size()
        if dist.get_backend() == "nccl":
            mine = everything.new_empty(num_rows, *everything.shape[1:])
            dist.reduce_scatter_tensor(mine, everything)
            return mine
        total = everything.clone()  # gloo has no reduce-scatter for every dtype; features are small
        dist.all_reduce(total)
        return total[rank() * num_rows : (rank() + 1) * num_rows].clone()

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        return _Gather.apply(*gradients)
