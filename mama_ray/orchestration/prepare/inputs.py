"""What a prepare is made from, by hash, so that an output never mixes the clips of two inputs."""

import hashlib
import json
import re
from typing import Any

import pyarrow.fs as pafs

from mama_ray.data.index import INDEX_NAME
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.parts import SUMMARY_NAME, WORK_FOLDER
from mama_ray.storage.places import Place

_FORMAT_VERSION = 1  # of the shards and the index: another one is another input
_NUM_SHOWN = 6
_LEFT_OVER = re.compile(r"\.(tar|parquet|json)\.[0-9a-f]{8}\.tmp$")  # what Place.open_whole left unfinished


def inputs_of(
    decides: dict[str, Any], shards: list[tuple[str, int]], videos: str | None, annotations: str | None
) -> dict[str, str]:
    """Name the inputs and hash all that decides what the output holds: settings, annotations, names and sizes of tars.

    Raises UserError when the folder of videos or the annotations are missing or empty.
    """
    digest = hashlib.sha256(json.dumps([_FORMAT_VERSION, decides, shards], sort_keys=True).encode())
    if videos and annotations:
        _check_videos(videos)
        place = Place.of(annotations)
        try:
            with place.open_stream() as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except FileNotFoundError as error:
            raise UserError("no such annotation file", got=annotations) from error
        except OSError as error:
            raise UserError("annotations cannot be read", got=f"{annotations}: {error}") from error
    return {
        "sha256": digest.hexdigest(),
        "from": f"{videos} and {annotations}" if annotations else f"{len(shards)} shards",
    }


def _check_videos(videos: str) -> None:
    folder = Place.of(videos)
    try:
        infos = folder.filesystem.get_file_info(pafs.FileSelector(folder.path))
    except FileNotFoundError as error:
        raise UserError("no such folder of videos", got=videos) from error
    except NotADirectoryError as error:
        raise UserError("not a folder of videos", got=videos) from error
    if not infos:
        raise UserError("the folder of videos is empty", got=videos)


def is_finished(folder: Place, inputs: dict[str, str], *, foreign: bool) -> bool:
    """Whether the index of these very inputs is there. Raises UserError when the output belongs to others."""
    remedy = (
        "delete its index.parquet, prepare.json and .prepare"
        if foreign
        else "choose another output, or delete this one"
    )
    unfinished = (folder / f"{WORK_FOLDER}/inputs.json").read_json()
    if unfinished is not None:
        if unfinished["sha256"] == inputs["sha256"]:
            return False
        raise UserError(
            "output holds an unfinished prepare of other inputs",
            got=unfinished["from"],
            wanted=inputs["from"],
            remedy=remedy,
        )
    finished = (folder / SUMMARY_NAME).read_json()
    if finished is not None and finished["inputs"]["sha256"] == inputs["sha256"]:
        return True
    names = [
        info.base_name
        for info in folder.entries()
        if info.base_name == INDEX_NAME or (not foreign and info.extension == "tar")
    ]
    if finished is not None or names:
        got = finished["inputs"]["from"] if finished else ", ".join(sorted(names)[:_NUM_SHOWN])
        raise UserError("output already holds clips of other inputs", got=got, wanted=inputs["from"], remedy=remedy)
    return False


def start_work(folder: Place, inputs: dict[str, str]) -> None:
    """Make the work folder, write down what it is for, and remove what a killed job was writing beside it."""
    for name in ("chunks", "parts"):
        (folder / f"{WORK_FOLDER}/{name}").make_folder()
    (folder / f"{WORK_FOLDER}/inputs.json").write_whole(json.dumps(inputs))
    for file in folder.files():
        if _LEFT_OVER.search(file.name):
            file.delete_file()
