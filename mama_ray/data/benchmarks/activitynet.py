"""ActivityNet Captions' official files; val_2 describes val_1's videos again."""

import json
from pathlib import Path

from mama_ray.data.benchmarks.rows import Row, Split, make_row
from mama_ray.errors import UserError


def read_activitynet(annotations: Path, captions: Path | None = None, split: Split = "test") -> list[Row]:
    """Return the rows of train.json or val_1.json; val_2.json describes the same videos again and is refused."""
    if annotations.stem.startswith("val_2"):
        raise UserError("ActivityNet is evaluated on val_1 alone", got=annotations.name, wanted="val_1.json")
    videos = json.loads(annotations.read_text())
    return [make_row(f"{name}.mp4", name, video["sentences"], split) for name, video in videos.items()]
