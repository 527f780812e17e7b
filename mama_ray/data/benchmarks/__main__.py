"""Official annotation files of retrieval and recognition as the rows that jobs/prepare.py reads.

    python -m mama_ray.data.benchmarks msrvtt_1ka --annotations MSRVTT_JSFUSION_test.csv --output annotations.jsonl

One row is one video, or one clip of it, with all its captions in file order; how they are used (one, joined, each) is
the benchmark's protocol, not the reader's. The files' traps are met here: DiDeMo joins a video's sentences by stem
because one video is listed under several extensions, and ActivityNet's val_2 describes val_1's videos again.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mama_ray.data.benchmarks.activitynet import read_activitynet
from mama_ray.data.benchmarks.charades_ego import read_charades_ego, read_charades_ego_clips
from mama_ray.data.benchmarks.didemo import read_didemo
from mama_ray.data.benchmarks.egomcq import read_egomcq
from mama_ray.data.benchmarks.egtea import read_egtea
from mama_ray.data.benchmarks.ek100 import read_ek100
from mama_ray.data.benchmarks.msrvtt import read_msrvtt
from mama_ray.data.benchmarks.msvd import read_msvd
from mama_ray.data.benchmarks.official_csv import told_faults
from mama_ray.data.benchmarks.rows import Row, Split, hold_out, trimmed, with_found_files
from mama_ray.errors import UserError
from mama_ray.storage.places import Place, storage_errors

Name = Literal[
    "msrvtt_1ka", "didemo", "activitynet", "msvd", "ek100", "charades_ego", "charades_ego_clips", "egtea", "egomcq"
]
READERS: dict[str, Callable[[Path, Path | None, Split], list[Row]]] = {
    "msrvtt_1ka": read_msrvtt,
    "didemo": read_didemo,
    "activitynet": read_activitynet,
    "msvd": read_msvd,
    "ek100": read_ek100,
    "charades_ego": read_charades_ego,
    "charades_ego_clips": read_charades_ego_clips,
    "egtea": read_egtea,
    "egomcq": read_egomcq,
}

_WITH_CAPTIONS_BESIDE = ("msrvtt_1ka", "msvd", "charades_ego_clips", "egtea")


def main(
    benchmark: Annotated[Name, tyro.conf.Positional],
    annotations: Path,
    output: Path,
    captions: Path | None = None,
    split: Split = "test",
    videos: Path | None = None,
    num_val: int = 0,
    trim_s: float | None = None,
) -> None:
    """Write the annotations that jobs/prepare.py reads from a benchmark's official files.

    Args:
        benchmark: Which files these are.
        annotations: The official file of one split; of egtea also the folder of all test lists.
        output: JSONL to write.
        captions: The file that holds the captions, or names the classes, where the annotations hold only ids.
        split: Split that the rows are given.
        videos: Folder of the videos, to find the extension that each file really has.
        num_val: Rows to mark as val instead, for training files without a validation split.
        trim_s: Keep only so many seconds of every video.
    """
    if videos and not videos.is_dir():
        raise UserError("no such folder of videos", got=videos, wanted="a folder on this machine")
    if captions is not None and benchmark not in _WITH_CAPTIONS_BESIDE:
        wanted = f"one of {', '.join(_WITH_CAPTIONS_BESIDE)}"
        raise UserError("--captions has no meaning for a benchmark of one file", got=benchmark, wanted=wanted)
    if num_val and split != "train":
        got = f"--num-val {num_val} with --split {split}"
        raise UserError("only clips of train are held out as val", got=got, wanted="--split train and its file")
    for given in (annotations, captions):
        if given is not None and output.resolve() == given.resolve():
            raise UserError("--output is the official file itself", got=output, wanted="another file")
    rows = _read(benchmark, annotations, captions, split)
    rows = hold_out(rows, num_val) if num_val else rows
    rows = with_found_files(rows, videos) if videos else rows
    rows = trimmed(rows, trim_s) if trim_s is not None else rows
    with storage_errors(str(output)):
        Place.of(output).write_whole("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _read(benchmark: str, annotations: Path, captions: Path | None, split: Split) -> list[Row]:
    """Read the official files; UserError for any other content, whose faults have as many forms as there are files."""
    for path in (annotations, captions):
        if path is not None and not path.exists():
            raise UserError("no such file", got=path, wanted=f"an official file of {benchmark}")
    names = " with ".join(path.name for path in (annotations, captions) if path is not None)
    with told_faults(names, f"official files of {benchmark}, as docs/evaluation.md and docs/egocentric.md name them"):
        return READERS[benchmark](annotations, captions, split)


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
