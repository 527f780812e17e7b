"""Published features of VGT as the table that training reads, tied to the clips of prepared shards.

    python -m mama_ray.data.region_features --shards shards --output features \\
        --regions acregion_8c20b_train.h5 acregion_8c20b_val.h5 --frames app_feat_train.h5 app_feat_val.h5

A clip's features are those of its video's id, so the clips are whole videos. Boxes are in pixels of the frames that the
authors looked at: those of the prepared videos, unless --size says others (MSRVTT: 320 240).
"""

import json
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from mama_ray.data.index import read_index
from mama_ray.data.region_features.published import PublishedFeatures, Unusable
from mama_ray.data.region_features.table import (
    CHUNK_CLIPS,
    INDEX_NAME,
    INDEX_SCHEMA,
    SUMMARY_NAME,
    TABLE_VERSION,
    FeatureShape,
    chunk_name,
    write_chunk,
)
from mama_ray.errors import UserError
from mama_ray.storage.files_of_others import refuse_others
from mama_ray.storage.lease import LEASE_NAME, Lease
from mama_ray.storage.places import Place, storage_errors

_COLUMNS = ("clip_id", "video_id", "sha256", "width", "height")


def main(
    shards: str,
    output: str,
    regions: tuple[Path, ...],
    frames: tuple[Path, ...],
    num_regions: int = 10,
    size: tuple[int, int] | None = None,
) -> None:
    """Write the table of features of all clips of the shards; a clip whose video is in no file has none."""
    if len(regions) != len(frames):
        raise UserError("files of regions and of frames", got=f"{len(regions)} and {len(frames)}", wanted="pairs")
    if size is not None and min(size) < 1:
        raise UserError("--size", got=f"{size[0]} {size[1]}", wanted="width and height in pixels")
    folder = Place.of(output)
    with ExitStack() as opened, storage_errors(output):
        opened.enter_context(Lease(folder / LEASE_NAME, "table of features"))
        sources = [
            opened.enter_context(PublishedFeatures(*pair, num_regions=num_regions))
            for pair in zip(regions, frames, strict=True)
        ]
        clips = read_index(Place.of(shards), columns=_COLUMNS)
        num_errors = write_published(clips, sources, folder, size=size)
    print(f"features of {len(clips) - num_errors} of {len(clips)} clips: {output}")  # noqa: T201 - the result


def write_published(
    clips: pa.Table, sources: list[PublishedFeatures], folder: Place, *, size: tuple[int, int] | None = None
) -> int:
    """Write a table of the clips' features; returns how many have none. UserError where none has."""
    if (folder / SUMMARY_NAME).exists():
        raise UserError("the folder holds a table already", got=folder.uri, remedy="choose another --output")
    if not (folder / chunk_name(0)).is_file():
        refuse_others(folder, [INDEX_NAME])  # of shards
    _require_whole_videos(clips)
    shape, waiting, index = None, [], []
    for start in range(0, len(clips), CHUNK_CLIPS):
        records = clips.slice(start, CHUNK_CLIPS).to_pylist()
        rows = [_row(start + place, record, sources, size) for place, record in enumerate(records)]
        index += [{name: row[name] for name in INDEX_SCHEMA.names} for row in rows]
        waiting.append((start // CHUNK_CLIPS, rows))
        shape = shape or _shape_of(rows)
        if shape is not None:  # until then nobody knows how large a row is
            for chunk, own in waiting:
                write_chunk(folder, chunk, [dict.fromkeys(shape.arrays) | row for row in own], shape)
            waiting = []
    if shape is None:
        raise UserError("no clip has features", got=index[0]["error"] if index else "no clips", wanted="video ids")
    table = pa.Table.from_pylist(index, schema=INDEX_SCHEMA)
    (folder / INDEX_NAME).write_whole(partial(pq.write_table, table, compression="zstd"))
    num_errors = sum(row["error"] is not None for row in index)
    outcomes = {"features": len(index) - num_errors, "error": num_errors}
    summary = {"version": TABLE_VERSION, "shape": shape.model_dump(), "num_rows": len(index), "outcomes": outcomes}
    (folder / SUMMARY_NAME).write_whole(json.dumps(summary, indent=1))
    return num_errors


def _require_whole_videos(clips: pa.Table) -> None:
    """Raise UserError where a video is several clips: each would get the features of the whole video."""
    video_id, number = max(Counter(clips["video_id"].to_pylist()).items(), key=lambda one: one[1], default=("", 0))
    if number > 1:
        raise UserError(
            "published features are of whole videos", got=f"{number} clips of video {video_id}",
            wanted="shards with one clip of each video", remedy="extract the clips' own: jobs/features.py",
        )  # fmt: skip


def _row(row: int, record: dict, sources: list[PublishedFeatures], size: tuple[int, int] | None) -> dict[str, Any]:
    known = {"row": row, "clip_id": record["clip_id"], "video_sha256": record["sha256"]}
    width, height = size or (record["width"], record["height"])
    holders = [source for source in sources if record["video_id"] in source]
    try:
        if len(holders) > 1:
            raise UserError("a video is in several files", got=record["video_id"], wanted="each in one pair of files")
        found = (holders or sources)[0].read_apart(record["video_id"])
    except Unusable as error:
        return known | {"error": str(error), "width": None, "height": None}
    return known | {"error": None, "width": width, "height": height} | found._asdict()


def _shape_of(rows: list[dict[str, Any]]) -> FeatureShape | None:
    """Return the sizes of the first row that has features."""
    for row in rows:
        if row["error"] is None:
            num_clips, frames_per_clip, num_regions, region_dim = row["regions"].shape
            return FeatureShape(
                num_clips=num_clips,
                frames_per_clip=frames_per_clip,
                num_regions=num_regions,
                frame_dim=row["frames"].shape[-1],
                region_dim=region_dim,
            )
    return None


if __name__ == "__main__":
    try:
        tyro.cli(main, description=__doc__)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
