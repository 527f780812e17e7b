"""A row of annotations as jobs/prepare.py reads it, and what the readers of official files check alike."""

import hashlib
from pathlib import Path
from typing import Any, Literal

from mama_ray.data.clip import VIDEO_EXTENSIONS
from mama_ray.errors import UserError

Row = dict[str, Any]
Split = Literal["train", "val", "test"]


def make_row(video: str, video_id: str, captions: list[str], split: Split) -> Row:
    """Return the row of one video with all its captions in file order."""
    return {"video": video, "video_id": video_id, "captions": list(captions), "split": split}


def as_list(text: str | list[str]) -> list[str]:
    """Return one text or a list of texts as a list."""
    return [text] if isinstance(text, str) else text


def need_columns(path: Path, records: list[dict], columns: tuple[str, ...], remedy: str) -> None:
    """Raise UserError where a file of records lacks columns; `remedy` says which file has them."""
    if not records:
        raise UserError(f"{path.name} has no rows", wanted=f"columns {', '.join(columns)}, and a row for each video")
    if any(name not in records[0] for name in columns):
        got = ", ".join(map(str, records[0]))
        raise UserError(f"{path.name} lacks columns", got=got, wanted=", ".join(columns), remedy=remedy)


def need_one_sentence(path: Path, sentences: dict[str, list[str]]) -> None:
    """Raise UserError where a test video has not one sentence: a drawn one would change the score."""
    several = [name for name, texts in sentences.items() if len(texts) != 1]
    if several:
        raise UserError(
            f"{len(several)} test videos of {path.name} have not one sentence",
            got=", ".join(several[:5]),
            wanted="one sentence each",
            remedy="a drawn one would change the score from run to run; use the official test file",
        )


def hold_out(rows: list[Row], num_val: int) -> list[Row]:
    """Mark `num_val` rows as val: the ones whose id hashes lowest, so that the choice is the same everywhere."""
    if not 0 <= num_val < len(rows):
        raise UserError("clips to hold out", got=num_val, wanted=f"0 to {len(rows) - 1}")
    ordered = sorted((row["video_id"] for row in rows), key=lambda name: hashlib.sha256(name.encode()).digest())
    chosen = set(ordered[:num_val])
    return [row | {"split": "val"} if row["video_id"] in chosen else row for row in rows]


def with_found_files(rows: list[Row], videos: Path) -> list[Row]:
    """Replace each video's name by the file that the folder has of it, whatever its extension; without one it stays.

    A video with a folder of its own, such as P01/P01_11.MP4, is found there, or else by its name alone. UserError where
    the folder has none of the videos.
    """
    suffixes = {f".{extension}" for extension in VIDEO_EXTENSIONS}
    files = [path.relative_to(videos) for path in sorted(videos.rglob("*")) if path.suffix.lower() in suffixes]
    by_stem = {path.stem: str(path) for path in reversed(files)}
    by_path = {str(path.with_suffix("")): str(path) for path in files}
    found = [by_path.get(name) or by_stem.get(name.rsplit("/", 1)[-1]) for name in map(_name, rows)]
    if not any(found):
        got, wanted = f"{len(files)} videos in {videos}", f"files such as {rows[0]['video']}"
        raise UserError("none of the videos is there", got=got, wanted=wanted)
    return [row | {"video": file or row["video"]} for row, file in zip(rows, found, strict=True)]


def _name(row: Row) -> str:
    """Return the path of a row's video without its ending; a clip that is a file of its own has its own."""
    return row["video"].rsplit(".", 1)[0] if "/" in row["video"] else row["video_id"]


def trimmed(rows: list[Row], trim_s: float) -> list[Row]:
    """Keep the first `trim_s` seconds of every video (DiDeMo is annotated for 30); the benchmark's file must say so.

    UserError where rows are clips of the benchmark's own, which have their times already.
    """
    if not 0 < trim_s < float("inf"):
        raise UserError("seconds to keep of every video", got=trim_s, wanted="more than 0")
    own = [row for row in rows if "clip_id" in row or "start_s" in row]
    if own:
        got = f"{len(own)} clips with names or times of their own, {own[0].get('clip_id', own[0]['video'])}"
        raise UserError("these clips cannot be trimmed", got=got, wanted="whole videos", remedy="leave out --trim-s")
    return [row | {"start_s": 0.0, "end_s": trim_s} for row in rows]
