"""The first task of a prepare from videos: a table, or a folder without one, becomes one file of clips per shard."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from pydantic import BaseModel, Field

from mama_ray.data.annotations import Annotation, read_annotations
from mama_ray.data.clip import VIDEO_EXTENSIONS
from mama_ray.data.index import INDEX_NAME, read_index
from mama_ray.data.narrations.egoclip import read_egoclip
from mama_ray.data.video.chunked import is_chunk_name
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.listing import list_files
from mama_ray.orchestration.prepare.parts import WORK_FOLDER, Part, part_name, write_part
from mama_ray.orchestration.prepare.quarantine import Reasons
from mama_ray.orchestration.prepare.rows import RefusedRow, checked_clips
from mama_ray.orchestration.prepare.scenes import can_be_cut
from mama_ray.orchestration.prepare.videos import VideoWork
from mama_ray.storage.places import Place
from mama_ray.storage.small_files import check_form

# Refused rows per part: bounds the memory of a table whose rows are all bad.
_REFUSED_PER_PART = 10_000
_NUM_SHOWN = 6
_MAX_SPLITS = 1000  # whose refused rows are counted: a table may have other things in this column


class _Finished(BaseModel):
    """The form of finished.json."""

    first: int = Field(0, ge=0, le=1 << 31)
    num_chunks: int = Field(ge=0, le=1 << 31)


def write_chunks(work: VideoWork, *, first: int = 0, only: Collection[str] | None = None) -> range:
    """Check all rows and write one file of clips per shard to come, numbered from `first`; return the numbers.

    Of a table only the clips of `only` are taken, where that is given, and bad rows, which are known by then, are
    passed over. Else bad rows become quarantine parts. Raises UserError when all rows of a split were refused.
    """
    folder = Place.of(work.output)
    chunks = folder / f"{WORK_FOLDER}/chunks"
    finished = (chunks / "finished.json").read_json()
    if finished is not None:
        numbers = check_form(_Finished, finished, chunks / "finished.json")
        return range(numbers.first, numbers.first + numbers.num_chunks)
    splits = _Splits()
    num_chunks, num_refused_parts = 0, 0
    good: list[str] = []
    refused, is_any_cut, clamped = Part(), False, Counter[str]()
    for clip in clips_of(work, clamped):
        if isinstance(clip, RefusedRow):
            if only is None:
                splits.refuse(clip)
                refused.refuse(clip.reason, **clip.known)
        elif only is None or clip.clip_id in only:
            splits.take(clip)
            good.append(clip.to_json())
            is_any_cut = is_any_cut or can_be_cut(clip)
        if len(good) == work.rows_per_chunk:
            _write_lines(chunks / f"{part_name(first + num_chunks)}.jsonl", good)
            num_chunks, good = num_chunks + 1, []
        if len(refused.quarantine) == _REFUSED_PER_PART:
            write_part(folder, f"rows-{num_refused_parts:06d}", refused)
            num_refused_parts, refused = num_refused_parts + 1, Part()
    splits.check()
    if work.cuts_scenes and only is None and num_chunks + len(good) and not is_any_cut:
        raise UserError(
            "no video to cut into scenes",
            got=f"{work.annotations}, whose rows all have times, captions or questions",
            wanted="rows of whole videos, of which nothing is said",
            remedy="leave out --scenes.detector, or those columns",
        )
    if good:
        _write_lines(chunks / f"{part_name(first + num_chunks)}.jsonl", good)
        num_chunks += 1
    refused.clamped += clamped if only is None else Counter()
    if refused.quarantine or refused.clamped:
        write_part(folder, f"rows-{num_refused_parts:06d}", refused)
    _write_lines(chunks / "finished.json", [json.dumps({"first": first, "num_chunks": num_chunks})])
    return range(first, first + num_chunks)


def clips_of(work: VideoWork, clamped: Counter | None = None) -> Iterator[Annotation | RefusedRow]:
    """Yield the clips of the table, or of all videos in the folder where there is no table, and the refused rows.

    Rows of which the table's format moves the start are counted in `clamped`.
    """
    rows: Iterable[tuple[int, dict[str, Any]]]
    if work.annotations is None:
        rows = enumerate(_rows_of_folder(work), 1)
    elif work.annotations_format == "egoclip":
        rows = read_egoclip(Place.of(work.annotations), clamped)
    else:
        rows = read_annotations(Place.of(work.annotations), unknown_columns=work.unknown_columns)
    with tempfile.TemporaryDirectory(prefix="mama_ray-prepare-") as scratch:
        yield from checked_clips(rows, default_split=work.default_split, split=work.split, scratch=scratch)


def _rows_of_folder(work: VideoWork) -> list[dict[str, Any]]:
    """A row per video of the folder; raises UserError where there is none.

    Those that an index has come first: a name that another video shares from now on stays with the one that had it.
    """
    names = list(dict.fromkeys(_video_of(file.name) for file in list_files(Place.of(work.videos))))
    videos = [name for name in names if _is_video_name(name)]
    if not videos:
        raise UserError(
            "the folder has no videos",
            got=f"{work.videos} with {', '.join(names[:_NUM_SHOWN])}",
            wanted=f"files ending in {', '.join(VIDEO_EXTENSIONS)}",
        )
    named = _named_without_extension(Place.of(work.output))
    return [{"video": name} for name in sorted(videos, key=lambda name: (not named(name), name))]


def _named_without_extension(output: Place) -> Callable[[str], bool]:
    """Return what tells whether a video of the folder has its name up to the extension as its video_id in the index."""
    if not (output / INDEX_NAME).is_file():
        return lambda name: False
    columns = read_index(output, ["video_id", "extension", "video"]).to_pydict().values()
    rows = list(zip(*columns, strict=True))
    ids = {path: video_id for video_id, _, path in rows if path is not None}
    # Of an earlier version, which did not note the path.
    extensions = {(video_id, extension) for video_id, extension, path in rows if path is None}

    def is_named(name: str) -> bool:
        stem, _, extension = name.rpartition(".")
        return ids[name] == stem if name in ids else (stem, extension.lower()) in extensions

    return is_named


def _is_video_name(name: str) -> bool:
    return name.rpartition(".")[2].lower() in VIDEO_EXTENSIONS


def _video_of(name: str) -> str:
    """Return the folder of a chunk, which is its video; other files are their own."""
    folder, _, base = name.rpartition("/")
    return folder if is_chunk_name(base) and _is_video_name(folder) else name


class _Splits:
    """Which splits were asked for, and which of them got a clip."""

    def __init__(self) -> None:
        self._num_taken: Counter = Counter()
        self._refused: dict[str, Reasons] = {}

    def take(self, clip: Annotation) -> None:
        self._num_taken[clip.split] += 1

    def refuse(self, row: RefusedRow) -> None:
        split = row.known.get("split")
        if split is not None and (split in self._refused or len(self._refused) < _MAX_SPLITS):
            self._refused.setdefault(split, Reasons()).add(row.reason)

    def check(self) -> None:
        """Raise UserError for a split all of whose rows were refused: a job that trains and tests would miss it."""
        lost = {split: reasons for split, reasons in self._refused.items() if not self._num_taken[split]}
        if not lost or not self._num_taken:
            return  # that nothing is usable at all is told at the end, with all reasons
        shown = "; ".join(f"{split} ({reasons})" for split, reasons in list(lost.items())[:_NUM_SHOWN])
        raise UserError(
            f"all rows of {len(lost)} splits were refused",
            got=shown,
            wanted="at least one good row in every split that the table names",
            remedy="mend these rows or remove them",
        )


def _write_lines(place: Place, lines: list[str]) -> None:
    place.write_whole("\n".join(lines) + "\n")
