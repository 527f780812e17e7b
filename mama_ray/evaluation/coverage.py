"""How much of a benchmark is there, and what a result on less (or more) of it is called.

A clip is missing that the benchmark has and the gallery has not, for whatever reason: it cannot be decoded, prepare
refused it, or it was never in the table. The benchmark's own count says so even where nothing else is known of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mama_ray.data.index import hash_ids
from mama_ray.evaluation.protocol import BenchmarkConfig


@dataclass(frozen=True)
class Coverage:
    """What a split has of a benchmark.

    Attributes:
        num_clips: of the split's index.
        num_captions: of these clips.
        num_refused: clips of the split that prepare refused.
        is_official: whether the video ids are the benchmark's; None where that cannot be told.
    """

    num_clips: int
    num_captions: int
    num_refused: int = 0
    is_official: bool | None = None

    def num_wanted(self, benchmark: BenchmarkConfig) -> int:
        """Clips of the whole benchmark."""
        return benchmark.num_clips or self.num_clips + self.num_refused

    def absent_clips(self, benchmark: BenchmarkConfig) -> int:
        """Clips of the benchmark that the index does not have."""
        return max(0, self.num_wanted(benchmark) - self.num_clips)

    def absent_texts(self, benchmark: BenchmarkConfig) -> int:
        """Queries of text to video that go with `absent_clips`; one for each where more is not known."""
        absent = self.absent_clips(benchmark)
        if not absent or benchmark.caption_mode != "multi" or benchmark.num_captions is None:
            return absent
        return max(absent, benchmark.num_captions - self.num_captions)

    def deviation(self, benchmark: BenchmarkConfig, num_undecodable: int = 0) -> str:
        """Return how what was there differs from the whole benchmark, "" where it is whole."""
        wanted, found = self.num_wanted(benchmark), self.num_clips - num_undecodable
        if found < wanted:
            return f"{found:,} of {wanted:,}"
        if found > wanted:
            return f"{found:,} clips for {wanted:,}"
        if benchmark.num_captions not in (None, self.num_captions):
            return f"{self.num_captions:,} captions for {benchmark.num_captions:,}"
        return "other videos" if self.is_official is False else ""


def has_official_videos(
    video_ids: Iterable[str], benchmark: BenchmarkConfig, *, refused: Iterable[str] = ()
) -> bool | None:
    """Tell whether these, alone or with the refused ones, are the benchmark's videos; None where it names no hash.

    A path before an id, as a table of one's own may have it, is no part of it.
    """
    if benchmark.video_ids_sha256 is None:
        return None
    found = set(video_ids)
    sets = (found, found | set(refused))
    names = ({name.rsplit("/", 1)[-1] for name in one} for one in sets)
    return benchmark.video_ids_sha256 in {hash_ids(one) for one in (*sets, *names)}
