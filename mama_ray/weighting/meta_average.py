"""The meta gradient averaged over the meta steps: the noise of a small meta batch falls, and no pass is added.

What is averaged was taken at the lookaheads of earlier steps: the average lags behind by about 1 / (1 - decay) of them.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from mama_ray.weighting.hypergradient import Parameters


class MetaAverage:
    """A moving average of the meta gradient with its bias corrected, so that its coefficients sum to 1 from the first.

    Meta gradients of one expectation that are drawn independently have an average of that expectation, and in the long
    run (1 - decay) / (1 + decay) of their variance.
    """

    def __init__(self, parameters: Parameters, decay: float):
        self._decay, self.num_averaged = decay, 0
        self._sums = {name: torch.zeros_like(value) for name, value in parameters.items()}

    def average_(self, gradients: Parameters) -> None:
        """Take a meta gradient in and put the average in its place; all ranks have the same."""
        names = list(self._sums)
        sums, new = [self._sums[name] for name in names], [gradients[name] for name in names]
        torch._foreach_lerp_(sums, new, 1.0 - self._decay)
        self.num_averaged += 1
        torch._foreach_copy_(new, sums)
        torch._foreach_div_(new, 1.0 - self._decay**self.num_averaged)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the sums by parameter; `num_averaged` belongs to them."""
        return dict(self._sums)

    def load_state_dict(self, sums: Mapping[str, Tensor], num_averaged: int) -> None:
        """Go on from a saved average; ValueError where it is of other parameters."""
        if sums.keys() != self._sums.keys():
            raise ValueError(f"the average of the meta gradient is of other parameters: {sorted(sums)[:3]}, ...")
        for name, value in self._sums.items():
            value.copy_(sums[name])
        self.num_averaged = num_averaged
