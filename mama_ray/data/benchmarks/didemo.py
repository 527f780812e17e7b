"""DiDeMo's official files; one video is listed under several extensions, so sentences are joined by stem."""

import json
from pathlib import Path

from mama_ray.data.benchmarks.rows import Row, Split, make_row


def read_didemo(annotations: Path, captions: Path | None = None, split: Split = "test") -> list[Row]:
    """Return the rows of {train,val,test}_data.json, sentences joined by the stem of the video's name."""
    rows: dict[str, Row] = {}
    for one in json.loads(annotations.read_text()):
        # Up to the first dot: a few names end in a bare dot, which Path.stem would keep.
        stem = one["video"].partition(".")[0]
        # Where the list has lost a name's ending, --videos finds the file that there is.
        video = f"{stem}.mp4" if one["video"].endswith(".") else one["video"]
        row = rows.setdefault(stem, make_row(video, stem, [], split))
        row["captions"].append(one["description"])
    return list(rows.values())
