"""The shard of a chunk of clips, or the several that it takes where one would grow too large."""

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from mama_ray.data.clip import Clip
from mama_ray.data.shard import MAX_SHARD_BYTES, MemberLocation, ShardWriter, open_shard
from mama_ray.storage.places import Place


class ShardSeries:
    """Writes clips into `<name>.tar`, then `<name>_0001.tar` and so on; a context manager.

    The names sort in this order, after the shard of the chunk before and before that of the next. A shard closes before
    the clip that would make it larger than `max_bytes`, or more than `max_clips`.
    """

    def __init__(
        self, folder: Place, name: str, *, max_bytes: int = MAX_SHARD_BYTES, max_clips: int | None = None
    ) -> None:
        self._folder, self._name, self._max_bytes, self._max_clips = folder, name, max_bytes, max_clips
        self._stack = ExitStack()
        self._num_clips: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._stack.__enter__()
        self._open_next()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return self._stack.__exit__(kind, error, traceback)

    def add(self, clip: Clip, video: bytes, extension: str) -> tuple[str, MemberLocation]:
        """Append a clip; returns the name of its shard and where its video went."""
        num_clips = self._num_clips[self._shard]
        is_full = num_clips == self._max_clips or self._writer.num_bytes + len(video) > self._max_bytes
        if num_clips and is_full:
            self._stack.close()
            self._open_next()
        location = self._writer.add(clip, video, extension)
        self._num_clips[self._shard] += 1
        return self._shard, location

    def finish(self) -> dict[str, dict[str, int]]:
        """After the block: return size and number of clips of each shard; one without clips is removed."""
        found = {}
        for shard, num_clips in self._num_clips.items():
            if num_clips:
                found[shard] = {"num_bytes": (self._folder / shard).info().size, "num_clips": num_clips}
            else:
                (self._folder / shard).delete_file()
        return found

    def _open_next(self) -> None:
        number = len(self._num_clips)
        self._shard = f"{self._name}.tar" if not number else f"{self._name}_{number:04d}.tar"
        self._num_clips[self._shard] = 0
        self._writer: ShardWriter = self._stack.enter_context(open_shard(self._folder / self._shard))
