"""Counting the products of matrices that a step takes: what bounds its time, without a clock."""

from math import prod

from torch.utils._python_dispatch import TorchDispatchMode

# Where a product's two factors stand among the arguments.
_FACTORS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "addmm_": (1, 2), "baddbmm": (1, 2)}
_ATTENTION = {
    "_scaled_dot_product_flash_attention_for_cpu": 2,
    "_scaled_dot_product_flash_attention_for_cpu_backward": 5,
}


class ProductCount(TorchDispatchMode):
    """Sums up multiplications; the products inside of fused attention are counted as such, forward 2 and backward 5."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.partition("::")[2]
        if name in _FACTORS:
            left, right = (args[place] for place in _FACTORS[name])
            self.total += left.numel() * right.shape[-1]
        elif name in _ATTENTION:
            queries, keys = args[:2] if _ATTENTION[name] == 2 else args[1:3]
            self.total += _ATTENTION[name] * prod(queries.shape) * keys.shape[-2]
        return func(*args, **(kwargs or {}))
