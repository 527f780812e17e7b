"""Official annotation files of text-video retrieval as the rows that jobs/prepare.py reads.

    python -m mama_ray.data.benchmarks msrvtt_1ka --annotations MSRVTT_JSFUSION_test.csv --output annotations.jsonl

One row is one video with all its captions in file order; how they are used (one, joined, each) is the benchmark's
protocol, not the reader's. The files' traps are met here: DiDeMo joins a video's sentences by stem because one video is
listed under several extensions, and ActivityNet's val_2 describes val_1's videos again.
"""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mama_ray.data.clip import VIDEO_EXTENSIONS
from mama_ray.errors import UserError

Row = dict[str, object]
Split = Literal["train", "val", "test"]


def read_msrvtt(annotations: Path, captions: Path | None = None, split: Split = "test") -> list[Row]:
    """Return the rows of MSRVTT_JSFUSION_test.csv, MSRVTT_train.9k.csv with MSRVTT_data.json, or CLIP-ViP's jsonl.

    The test file repeats five sentences, so a positive is known by its video alone. A test row has one sentence.
    """
    if annotations.suffix == ".jsonl":
        records = [json.loads(line) for line in annotations.read_text().splitlines() if line.strip()]
        sentences = {one["clip_id"]: _as_list(one["text"]) for one in records}
    elif captions is None:
        with annotations.open(newline="") as file:
            records = list(csv.DictReader(file))
        _need_columns(
            annotations, records, ("video_id", "sentence"), "give --captions MSRVTT_data.json for a list of ids"
        )
        sentences = {one["video_id"]: [one["sentence"]] for one in records}
    else:
        with annotations.open(newline="") as file:
            records = list(csv.DictReader(file))
        _need_columns(annotations, records, ("video_id",), "give MSRVTT_train.9k.csv")
        sentences = {one["video_id"]: [] for one in records}
        for one in json.loads(captions.read_text())["sentences"]:
            if one["video_id"] in sentences:
                sentences[one["video_id"]].append(one["caption"])
    if len(sentences) != len(records):
        raise UserError(f"{annotations.name} names a video twice", got=len(records), wanted=f"{len(sentences)} rows")
    if split == "test":
        _need_one_sentence(annotations, sentences)
    return [_row(f"{name}.mp4", name, texts, split) for name, texts in sentences.items()]


def read_didemo(annotations: Path, captions: Path | None = None, split: Split = "test") -> list[Row]:
    """Return the rows of {train,val,test}_data.json, sentences joined by the stem of the video's name."""
    rows: dict[str, Row] = {}
    for one in json.loads(annotations.read_text()):
        # Up to the first dot: a few names end in a bare dot, which Path.stem would keep.
        stem = one["video"].partition(".")[0]
        row = rows.setdefault(stem, _row(one["video"], stem, [], split))
        row["captions"].append(one["description"])
    return list(rows.values())


def read_activitynet(annotations: Path, captions: Path | None = None, split: Split = "test") -> list[Row]:
    """Return the rows of train.json or val_1.json; val_2.json describes the same videos again and is refused."""
    if annotations.stem.startswith("val_2"):
        raise UserError("ActivityNet is evaluated on val_1 alone", got=annotations.name, wanted="val_1.json")
    videos = json.loads(annotations.read_text())
    return [_row(f"{name}.mp4", name, video["sentences"], split) for name, video in videos.items()]


def read_msvd(annotations: Path, captions: Path | None = None, split: Split = "test") -> list[Row]:
    """Return the rows of {train,val,test}_list.txt with captions_msvd.json, about forty captions each."""
    if captions is None:
        raise UserError("MSVD's lists hold no captions", wanted="--captions captions_msvd.json")
    texts = json.loads(captions.read_text())
    names = annotations.read_text().split()
    unknown = [name for name in names if name not in texts]
    if unknown:
        raise UserError(f"{len(unknown)} videos have no captions in {captions.name}", got=", ".join(unknown[:5]))
    return [_row(f"{name}.avi", name, texts[name], split) for name in names]


READERS: dict[str, Callable[[Path, Path | None, Split], list[Row]]] = {
    "msrvtt_1ka": read_msrvtt,
    "didemo": read_didemo,
    "activitynet": read_activitynet,
    "msvd": read_msvd,
}


def hold_out(rows: list[Row], num_val: int) -> list[Row]:
    """Mark `num_val` rows as val: the ones whose id hashes lowest, so that the choice is the same everywhere."""
    if not 0 <= num_val < len(rows):
        raise UserError("clips to hold out", got=num_val, wanted=f"0 to {len(rows) - 1}")
    ordered = sorted((row["video_id"] for row in rows), key=lambda name: hashlib.sha256(name.encode()).digest())
    chosen = set(ordered[:num_val])
    return [row | {"split": "val"} if row["video_id"] in chosen else row for row in rows]


def with_found_files(rows: list[Row], videos: Path) -> list[Row]:
    """Replace each video's name by the file of that stem that lies in the folder; without one the name stays."""
    suffixes = {f".{extension}" for extension in VIDEO_EXTENSIONS}
    found = {path.stem: path.name for path in sorted(videos.iterdir()) if path.suffix.lower() in suffixes}
    return [row | {"video": found.get(row["video_id"], row["video"])} for row in rows]


def trimmed(rows: list[Row], trim_s: float) -> list[Row]:
    """Keep the first `trim_s` seconds of every video (DiDeMo is annotated for 30); the benchmark's file must say so."""
    return [row | {"start_s": 0.0, "end_s": trim_s} for row in rows]


def main(
    benchmark: Annotated[Literal["msrvtt_1ka", "didemo", "activitynet", "msvd"], tyro.conf.Positional],
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
        annotations: The official file of one split.
        output: JSONL to write.
        captions: The file that holds the captions where the annotations hold only ids.
        split: Split that the rows are given.
        videos: Folder of the videos, to find the extension that each file really has.
        num_val: Rows to mark as val instead, for training files without a validation split.
        trim_s: Keep only so many seconds of every video.
    """
    rows = READERS[benchmark](annotations, captions, split)
    rows = hold_out(rows, num_val) if num_val else rows
    rows = with_found_files(rows, videos) if videos else rows
    rows = trimmed(rows, trim_s) if trim_s else rows
    temporary = output.with_name(output.name + ".tmp")
    temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    temporary.rename(output)


def _row(video: str, video_id: str, captions: list[str], split: Split) -> Row:
    return {"video": video, "video_id": video_id, "captions": list(captions), "split": split}


def _as_list(text: str | list[str]) -> list[str]:
    return [text] if isinstance(text, str) else text


def _need_columns(path: Path, records: list[dict], columns: tuple[str, ...], remedy: str) -> None:
    missing = [name for name in columns if not records or name not in records[0]]
    if missing:
        raise UserError(f"{path.name} lacks columns", got=", ".join(missing), wanted=", ".join(columns), remedy=remedy)


def _need_one_sentence(path: Path, sentences: dict[str, list[str]]) -> None:
    several = [name for name, texts in sentences.items() if len(texts) != 1]
    if several:
        raise UserError(
            f"{len(several)} test videos of {path.name} have not one sentence",
            got=", ".join(several[:5]),
            wanted="one sentence each",
            remedy="a drawn one would change the score from run to run; use the official test file",
        )


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
