"""Where a captioning job's clips come from: what is shown of a few of them, whatever they are cut out of.

A plan names its source; decoding, the report card and the dry run ask it alone. Whoever has clips of another kind, such
as windows of long videos, writes a source and uses the rest as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Protocol

from mama_ray.captioning.pictures.show import ShowConfig, ShownClip, show_clip
from mama_ray.data.reading import bounded_runs, read_payloads
from mama_ray.data.shard import ShardError
from mama_ray.data.video.container import DecodeError
from mama_ray.masking import mask_text
from mama_ray.storage.places import Place

__all__ = ["ClipSource", "ShardSource", "ShowConfig", "ShownClip"]

MAX_READ_BYTES = 64 << 20  # 32 clips of 10 s in 720p; of more and larger ones a task would hold gigabytes


class ClipSource(Protocol):
    """Shows clips; picklable and small, as it travels with the plan.

    Attributes:
        description: what the clips lie in, for people, as "3 shards".
    """

    @property
    def description(self) -> str: ...

    def show(self, records: Sequence[Mapping], how: ShowConfig) -> Iterator[ShownClip | str]:
        """Yield for each record in order what is shown of its clip, or in words why it cannot be.

        `records` are rows of the plan's table, neighbours for the most part. A reason is a fact about the clip and will
        be written down as such; UserError and OSError say that the storage fails, of which nothing follows for it.
        """
        ...


@dataclass(frozen=True)
class ShardSource:
    """The clips of prepared shards: records are rows of their index with shard, offset, num_bytes and sha256."""

    shards: str
    num_shards: int

    @property
    def description(self) -> str:
        """Return how many shards they are."""
        return f"{self.num_shards:,} shard{'' if self.num_shards == 1 else 's'}"

    def show(self, records: Sequence[Mapping], how: ShowConfig) -> Iterator[ShownClip | str]:
        """Read the clips, neighbours by one request, and show them; see `ClipSource`."""
        for run in bounded_runs(records, MAX_READ_BYTES):
            began = perf_counter()
            payloads = read_payloads(Place.of(self.shards), run)[::-1]
            read_s = (perf_counter() - began) / len(run)
            while payloads:
                try:
                    if isinstance(payload := payloads.pop(), ShardError):
                        raise payload
                    shown = replace(show_clip(payload, how), read_s=read_s)
                except (DecodeError, ShardError) as error:
                    yield reason_of(error)
                else:
                    yield shown


def reason_of(error: Exception) -> str:
    """Return an error in one line, free of secrets, as a table keeps it."""
    return mask_text(" ".join(str(error).split())) or type(error).__name__
