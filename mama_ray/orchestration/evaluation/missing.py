"""What is said of missing clips: in the log, and by name in the result."""

import logging

import numpy as np

from mama_ray.evaluation.protocol import BenchmarkConfig
from mama_ray.orchestration.evaluation.rank import Features
from mama_ray.orchestration.evaluation.refused import RefusedClips
from mama_ray.orchestration.evaluation.split import EvaluatedSplit
from mama_ray.orchestration.prepare.quarantine import QUARANTINE_NAME
from mama_ray.storage.places import join_uri

logger = logging.getLogger(__name__)

_MAX_NAMED = 100


def warn_of_refused(refused: RefusedClips, benchmark: BenchmarkConfig, shards: str) -> None:
    """Tell of clips of the split that prepare refused, and of refused rows that may be some."""
    place = join_uri(shards, QUARANTINE_NAME)
    if refused.clips:
        logger.warning(
            "%d clips of split %s were refused when the shards were prepared (%s): missing clips are %s",
            len(refused.clips), benchmark.split, place, benchmark.missing.replace("_", " "),
        )  # fmt: skip
    if refused.num_unplaced:
        logger.warning(
            "%d refused rows in %s name no split: some may be of %s", refused.num_unplaced, place, benchmark.split
        )


def name_missing(split: EvaluatedSplit, features: Features, benchmark: BenchmarkConfig) -> list[dict[str, str]]:
    """Return clip_id and error of the first missing clips: those that cannot be decoded, then those refused before."""
    rows = np.array(sorted(features.errors)[:_MAX_NAMED], dtype=np.int64)
    named = []
    if len(rows):
        logger.warning("%d of %d clips could not be decoded", len(features.errors), split.num_clips)
        clips = split.pick(rows)
        named = [
            {"clip_id": clip["clip_id"], "error": features.errors[int(row)]}
            for clip, row in zip(clips, rows, strict=True)
        ]
    if split.coverage.absent_clips(benchmark):
        named += [
            {"clip_id": name, "error": f"refused by prepare: {clip['reason']}"}
            for name, clip in zip(split.refused.names(), split.refused.clips, strict=True)
        ]
    return named[:_MAX_NAMED]
