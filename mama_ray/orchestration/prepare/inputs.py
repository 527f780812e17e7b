"""What a prepare is made from, by hash, so that an output never mixes the clips of two inputs."""

import hashlib
import json
import re
from contextlib import suppress
from typing import Any, Literal

from pydantic import BaseModel, Field

from mama_ray.data.index import INDEX_NAME
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.foreign import ForeignShard
from mama_ray.orchestration.prepare.listing import has_names
from mama_ray.orchestration.prepare.parts import SUMMARY_NAME, WORK_FOLDER
from mama_ray.storage.places import Place
from mama_ray.storage.small_files import FileFormError, check_form, parse_json

State = Literal["new", "begun", "finished", "mending"]
"""Of an output: nothing is there, a prepare was begun, it was finished, what was mended since is being taken in."""

_FORMAT_VERSION = 1  # of the shards and the index: another one is another input
_SHARDS_NAME = "shards.jsonl"  # of the work folder: name, size and time of each foreign shard
_NUM_SHOWN = 6
_LEFT_OVER = re.compile(r"\.(tar|parquet|json|csv)\.[0-9a-f]{8}\.tmp$")  # what Place.open_whole left unfinished


class _Inputs(BaseModel):
    """The form of inputs.json: what `inputs_of` returns, as far as it is read again."""

    sha256: str
    named: str = Field(alias="from")
    settings: str | None = None
    shards: dict[str, tuple[int, int | None]] = {}
    mends: bool = False


class _Summary(BaseModel):
    """The form of prepare.json, as far as it is read again."""

    inputs: _Inputs


def _read(form: type[BaseModel], place: Place) -> Any:
    content = _read_json(place)
    if content is not None:
        check_form(form, content, place)
    return content


def _read_json(place: Place) -> dict[str, Any] | None:
    """As `Place.read_json` does, of any size: an earlier version listed all foreign shards in these files."""
    try:
        content = parse_json(place.read_bytes(), place)
    except (FileNotFoundError, FileFormError):  # or cut off
        return None
    return content if isinstance(content, dict) else None


def read_summary(folder: Place) -> dict[str, Any] | None:
    """Return what prepare.json holds; None where there is none."""
    return _read_json(folder / SUMMARY_NAME)


def read_inputs(folder: Place) -> dict[str, Any]:
    """Return the inputs of the prepare that is under way, its foreign shards included."""
    inputs = _read_json(folder / f"{WORK_FOLDER}/inputs.json")
    if inputs is None:
        raise UserError("the work folder of the prepare is not whole", got=folder / WORK_FOLDER, remedy="delete it")
    with suppress(FileNotFoundError):  # of an earlier version
        lines = (folder / f"{WORK_FOLDER}/{_SHARDS_NAME}").read_bytes().splitlines()
        inputs["shards"] = {name: size for name, *size in map(json.loads, lines)}
    return inputs


def inputs_of(
    decides: dict[str, Any], shards: list[ForeignShard], videos: str | None, annotations: str | None
) -> dict[str, Any]:
    """Name the inputs and hash all that decides what the output holds: settings, annotations, names and sizes of tars.

    What may be mended is not in the hash: videos, and of foreign shards the list, which is beside it. Raises UserError
    when the folder of videos or the annotations are missing or empty.
    """
    sizes = [(shard.name, shard.num_bytes) for shard in shards]
    digest = hashlib.sha256(json.dumps([_FORMAT_VERSION, decides, sizes], sort_keys=True).encode())
    if videos:
        look_at_videos(Place.of(videos))
    if annotations:
        place = Place.of(annotations)
        try:
            with place.open_stream() as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except FileNotFoundError as error:
            raise UserError("no such annotation file", got=annotations) from error
        except OSError as error:
            raise UserError("annotations cannot be read", got=f"{annotations}: {error}") from error
    named = f"{videos} and {annotations}" if annotations else videos or f"{len(shards)} shards"
    if smaller := decides.get("transcode"):  # another one is told by these
        named += " with " + ", ".join(f"transcode.{name} {value:g}" for name, value in smaller.items())
    inputs: dict[str, Any] = {"sha256": digest.hexdigest(), "from": named}
    if smaller:
        inputs["transcode"] = smaller
    if shards:
        settings = json.dumps([_FORMAT_VERSION, decides], sort_keys=True)
        inputs["settings"] = hashlib.sha256(settings.encode()).hexdigest()
        inputs["shards"] = {shard.name: [shard.num_bytes, shard.modified_ns] for shard in shards}
    return inputs


def look_at_videos(folder: Place) -> None:
    """Raise UserError where the folder of videos is missing, empty or none."""
    try:
        is_empty = not has_names(folder)
    except FileNotFoundError as error:
        raise UserError("no such folder of videos", got=folder) from error
    except NotADirectoryError as error:
        raise UserError("not a folder of videos", got=folder) from error
    if is_empty:
        raise UserError("the folder of videos is empty", got=folder)


def state_of(folder: Place, inputs: dict[str, Any], *, foreign: bool) -> State:
    """Say how far the output is with these very inputs. Raises UserError when it belongs to others."""
    unfinished = _read(_Inputs, folder / f"{WORK_FOLDER}/inputs.json")
    if unfinished is not None:
        if _is_same(unfinished, inputs):
            return "mending" if unfinished.get("mends") else "begun"
        raise UserError(
            "output holds an unfinished prepare of other inputs",
            got=unfinished["from"],
            wanted=inputs["from"],
            remedy=_remedy(foreign),
        )
    finished = _read(_Summary, folder / SUMMARY_NAME)
    if finished is not None and _is_same(finished["inputs"], inputs):
        return "finished"
    names = [
        info.base_name
        for info in folder.entries()
        if info.base_name == INDEX_NAME or (not foreign and info.extension == "tar")
    ]
    if finished is not None or names:
        got = finished["inputs"]["from"] if finished else ", ".join(sorted(names)[:_NUM_SHOWN])
        raise UserError(
            "output already holds clips of other inputs", got=got, wanted=inputs["from"], remedy=_remedy(foreign)
        )
    return "new"


def shards_to_walk(
    shards: list[ForeignShard], known: dict[str, list[int | None]], held: dict[str, dict[str, int]]
) -> list[ForeignShard]:
    """Return the shards that are new, or other than when they were refused.

    Args:
        known: size and time of those that a finished prepare found no good clip in; of all in an earlier version.
        held: `shard_sizes` of its index. Raises UserError when one of these has another size now, or is gone.
    """
    sizes = {shard.name: shard.num_bytes for shard in shards}
    others = [name for name, size in held.items() if sizes.get(name) != size["num_bytes"]]
    if others:
        more = f" and {len(others) - _NUM_SHOWN} more" if others[_NUM_SHOWN:] else ""
        raise UserError(
            "output already holds clips of other inputs",
            got=f"shards that are gone or have another size: {', '.join(others[:_NUM_SHOWN])}{more}",
            wanted="those of the index",
            remedy=f"restore them, or {_remedy(foreign=True)}",
        )
    return [
        shard
        for shard in shards
        if shard.name not in held and known.get(shard.name) != [shard.num_bytes, shard.modified_ns]
    ]


def start_work(folder: Place, inputs: dict[str, Any], *, mends: bool = False, is_spread: bool = False) -> None:
    """Remove what a killed job was writing, which may make room, then make the work folder and say what it is for."""
    remove_left_over(folder, is_spread=is_spread)
    for name in ("chunks", "parts"):
        (folder / f"{WORK_FOLDER}/{name}").make_folder()
    small = {name: value for name, value in inputs.items() if name != "shards"}
    if "shards" in inputs:
        lines = "".join(json.dumps([name, *size]) + "\n" for name, size in inputs["shards"].items())
        (folder / f"{WORK_FOLDER}/{_SHARDS_NAME}").write_whole(lines)
    (folder / f"{WORK_FOLDER}/inputs.json").write_whole(json.dumps({**small, "mends": mends}))


def remove_left_over(folder: Place, *, is_spread: bool = False) -> None:
    """Remove what tasks that were ended were writing, also in the folders over which shards are spread."""
    for file in folder.files(recursive=is_spread):
        if _LEFT_OVER.search(file.name):
            file.delete_file()


def _is_same(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether the inputs are the same; foreign shards may have been added or mended."""
    if before["sha256"] == now["sha256"]:
        return True
    return "settings" in now and before.get("settings") == now["settings"]


def _remedy(foreign: bool) -> str:
    if foreign:
        return "delete its index.parquet, prepare.json and .prepare"
    return "choose another output, or delete this one"
