"""The clips of a split that prepare refused: they are in no index, and a benchmark without them is not whole."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.quarantine import QUARANTINE_NAME
from mama_ray.storage.parquet import read_parquet
from mama_ray.storage.places import Place

_COLUMNS = ("clip_id", "video_id", "video", "reason")


@dataclass(frozen=True)
class RefusedClips:
    """Refused clips of one split.

    Attributes:
        clips: clip_id, video_id, video and reason of each, as far as they are known.
        num_unplaced: refused rows that name no split, which may belong to this one.
    """

    clips: tuple[dict[str, str | None], ...] = ()
    num_unplaced: int = 0

    def names(self) -> list[str]:
        """Return the best name there is of each clip."""
        return [clip["clip_id"] or clip["video_id"] or clip["video"] or "" for clip in self.clips]


def read_refused(folder: Place, split: str, clip_ids: Sequence[str], video_ids: Sequence[str]) -> RefusedClips:
    """Read which clips of a split are in the quarantine beside the index and not in the index after all.

    clip_ids and video_ids: of the index's clips of that split. A second row of a clip that the index has is no clip of
    its own. Raises UserError when the quarantine cannot be read.
    """
    place = folder / QUARANTINE_NAME
    try:
        table = read_parquet(place, lambda parquet: parquet.read())
    except FileNotFoundError:  # shards that were indexed by an earlier version, or moved without it
        return RefusedClips()
    except pa.ArrowInvalid as error:
        raise UserError(
            "the list of refused clips cannot be read",
            got=f"{place} ({' '.join(str(error).split())})",
            remedy="make it again with jobs/prepare.py",
        ) from error
    if "split" not in table.column_names:  # of an earlier version
        return RefusedClips(num_unplaced=len(table))
    seen = {*zip(clip_ids, video_ids, strict=True), *((clip_id, None) for clip_id in clip_ids)}
    clips, num_unplaced = [], 0
    for row in table.select([*_COLUMNS, "split"]).to_pylist():
        num_unplaced += row["split"] is None
        if row["split"] != split:
            continue
        name = (row["clip_id"], row["video_id"]) if row["clip_id"] else (row["video_id"], row["video"], row["reason"])
        if name not in seen:
            seen.add(name)
            clips.append({key: row[key] for key in _COLUMNS})
    return RefusedClips(tuple(clips), num_unplaced)
