"""What validation decodes, kept in memory as far as it fits: small val splits are decoded once in a run."""

from collections.abc import Callable
from typing import Generic, TypeVar

_Chunk = TypeVar("_Chunk")


class KeptChunks(Generic[_Chunk]):
    """The chunks of one worker's share by number; the first that fit into `max_bytes` together are kept."""

    def __init__(self, decode: Callable[[int], _Chunk], num_bytes: Callable[[_Chunk], int], *, max_bytes: int) -> None:
        self._decode, self._num_bytes = decode, num_bytes
        self._bytes_left = max_bytes
        self._kept: dict[int, _Chunk] = {}

    def __getitem__(self, number: int) -> _Chunk:
        """Return a chunk, decoded now unless it was kept."""
        if number in self._kept:
            return self._kept[number]
        chunk = self._decode(number)
        if (size := self._num_bytes(chunk)) <= self._bytes_left:
            self._bytes_left -= size
            self._kept[number] = chunk
        return chunk
