"""peft's linear layer with an adapter, computed by one function; imported where there are adapters alone."""

from typing import Any

from peft.tuners.lora import Linear
from torch import Tensor, nn

from mama_ray.models.low_rank import low_rank_linear

ADAPTER = "default"


class AdaptedLinear(Linear):
    """The same parameters, names and outputs; with dropout it is peft's own computation."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        dropout = self.lora_dropout[ADAPTER]
        if self.training and isinstance(dropout, nn.Dropout) and dropout.p > 0:
            return super().forward(x, *args, **kwargs)
        base = self.get_base_layer()
        first, second = self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight
        return low_rank_linear(x, base.weight, base.bias, first, second, self.scaling[ADAPTER])


def take_over(layer: Linear) -> None:
    """Make a layer that peft has made one of these."""
    layer.__class__ = AdaptedLinear
