"""What the linear layers and the frozen parts gave in the training pass, kept for the directional pass.

No new memory while the training graph is alive, since autograd holds these tensors too: of a linear layer whose output
goes into a residual sum only, the sum is kept, which the next layer norm holds. Afterwards the tape is 9 tensors of a
layer's width where the graph was 17 to 20, and it shrinks as the directional pass goes on. With dropout between a
layer and its sum the output itself is kept, which the graph has no need of: one tensor more per such layer.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from weakref import WeakValueDictionary

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mama_ray.models.low_rank import low_rank_linear
from mama_ray.weighting.constants import ConstantParts
from mama_ray.weighting.tangents import ADDITIONS


class _Entry:
    """One linear layer's output, or the sum that it went into."""

    def __init__(self, output: Tensor):
        self.keep(output)

    def keep(self, value: Tensor, *, is_sum: bool = False) -> None:
        self.value, self.is_sum, self._version = value.detach(), is_sum, value._version

    def require_untouched(self) -> None:
        if self.value._version != self._version:
            raise RuntimeError("a linear layer's output was changed in place: forward_mode needs it as it was")


class Tape:
    """What the linear layers and the frozen parts of one forward pass gave, in order; recorded once, replayed once."""

    def __init__(self, parameters: Mapping[str, Tensor] | None = None) -> None:
        """Make an empty one, for tangents of these parameters, or of all that have a gradient."""
        self._entries: list[_Entry] = []
        self.constants = ConstantParts(parameters)

    def __len__(self) -> int:
        return len(self._entries)

    @contextmanager
    def record(self, model: nn.Module | None = None) -> Iterator[None]:
        """Keep what the linear layers inside the context give, and what the frozen parts of the model do."""
        with _Recording(self._entries):
            if model is None:
                yield
            else:
                with self.constants.record(model, self._entries):
                    yield

    def take(self) -> _Entry:
        """Return the next output and let go of it."""
        if not self._entries:
            raise AssertionError("the directional pass has more linear layers than the training pass")
        entry = self._entries.pop(0)
        entry.require_untouched()
        return entry

    def require_end(self) -> None:
        """Refuse a replay that was not the recorded pass."""
        assert not self._entries, "the directional pass has fewer linear layers than the training pass"


class _Recording(TorchFunctionMode):
    def __init__(self, entries: list[_Entry]):
        super().__init__()
        self._entries = entries
        # By identity. A sum may stand for an output while nothing else reads it; entries of frozen parts are let go.
        self._outputs: WeakValueDictionary[int, Tensor] = WeakValueDictionary()
        self._entry_of: WeakValueDictionary[int, _Entry] = WeakValueDictionary()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        is_addition = func in ADDITIONS and not kwargs  # alpha would scale the tangent
        for value in _flattened((*args, *kwargs.values())):
            if id(value) in self._entry_of and self._outputs.get(id(value)) is value:
                self._note_use(value, result if is_addition else None)
        if func is F.linear or func is low_rank_linear:
            entry = _Entry(result)
            self._entries.append(entry)
            self._outputs[id(result)] = result
            self._entry_of[id(result)] = entry
        return result

    def _note_use(self, output: Tensor, total: Tensor | None) -> None:
        entry = self._entry_of[id(output)]
        if total is not None and entry is self._entries[-1] and not entry.is_sum:
            entry.keep(total, is_sum=True)
            return
        if entry.is_sum:
            entry.keep(output)
        del self._outputs[id(output)]  # settled


def _flattened(args: Sequence) -> Iterator:
    for arg in args:
        if isinstance(arg, list | tuple):
            yield from _flattened(arg)
        else:
            yield arg
