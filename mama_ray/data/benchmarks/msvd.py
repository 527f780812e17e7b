"""MSVD's official lists, whose captions lie in a file of their own."""

import json
from pathlib import Path

from mama_ray.data.benchmarks.rows import Row, Split, make_row
from mama_ray.errors import UserError


def read_msvd(annotations: Path, captions: Path | None = None, split: Split = "test") -> list[Row]:
    """Return the rows of {train,val,test}_list.txt with captions_msvd.json, about forty captions each."""
    if captions is None:
        raise UserError("MSVD's lists hold no captions", wanted="--captions captions_msvd.json")
    texts = json.loads(captions.read_text())
    names = annotations.read_text().split()
    unknown = [name for name in names if name not in texts]
    if unknown:
        raise UserError(f"{len(unknown)} videos have no captions in {captions.name}", got=", ".join(unknown[:5]))
    return [make_row(f"{name}.avi", name, texts[name], split) for name in names]
