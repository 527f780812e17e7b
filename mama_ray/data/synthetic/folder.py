"""The corpus as a folder: `videos/<clip_id>.mp4`, `annotations.jsonl` and, last of all, the manifest `corpus.json`.

A chunk of clips leaves a part behind once its videos are whole, so a job that was killed goes on where it was. A folder
without its manifest is not a corpus; one whose manifest names another config is never written to.
"""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from mama_ray.data.clip import Clip
from mama_ray.data.synthetic.config import CorpusConfig, Split, corpus_hash
from mama_ray.data.synthetic.generate import generate_clip
from mama_ray.errors import UserError
from mama_ray.storage.places import Place

ANNOTATIONS_NAME = "annotations.jsonl"
MANIFEST_NAME = "corpus.json"
VIDEOS_FOLDER = "videos"
# Names the config of a corpus that is being written; gone when the manifest is there.
WORK_FOLDER = ".corpus"
CLIPS_PER_CHUNK = 128
_COPY_BYTES = 1 << 20


def write_corpus(config: CorpusConfig, directory: str | Path) -> str:
    """Write the corpus to a local folder in this process and return the folder; a whole one is left as it is.

    Raises UserError when the folder holds another corpus, or files that are not the generator's.
    """
    folder = Place.of(directory)
    if not open_corpus(folder, config):
        for chunk in range(num_chunks(config)):
            write_chunk(folder, config, chunk)
        close_corpus(folder, config)
    return str(directory)


def open_corpus(folder: Place, config: CorpusConfig) -> bool:
    """Tell whether the whole corpus is there; if not, make the folder ready for its chunks.

    Raises UserError when the folder holds another corpus, or files that are not the generator's.
    """
    if is_whole(folder, config):
        return True
    if _read_json(folder / f"{WORK_FOLDER}/config.json") is None:
        taken = [name for name in (ANNOTATIONS_NAME, VIDEOS_FOLDER) if (folder / name).exists()]
        if taken:
            raise UserError(
                "the folder holds files that are not a generated corpus",
                got=f"{folder} with {' and '.join(taken)}",
                wanted="an empty or new folder",
            )
    for name in (VIDEOS_FOLDER, f"{WORK_FOLDER}/parts"):
        (folder / name).make_folder()
    _write_json(folder / f"{WORK_FOLDER}/config.json", _manifest(config))
    return False


def is_whole(folder: Place, config: CorpusConfig) -> bool:
    """Tell whether the whole corpus is there. Raises UserError when the folder holds another one, or its begin."""
    manifest = _read_json(folder / MANIFEST_NAME)
    found = manifest or _read_json(folder / f"{WORK_FOLDER}/config.json")
    if found and found.get("hash") != corpus_hash(config):
        raise UserError(
            "the folder holds another corpus",
            got=f"{folder} with {_difference(found.get('config') or {}, config)}",
            remedy="choose another folder or remove this one",
        )
    return bool(manifest)


def num_chunks(config: CorpusConfig) -> int:
    """Return the number of chunks of a corpus."""
    return -(-sum(config.num_clips.values()) // CLIPS_PER_CHUNK)


def list_clips(config: CorpusConfig) -> list[tuple[Split, int]]:
    """Return (split, number) of every clip, in the corpus's order."""
    return [(split, number) for split, count in config.num_clips.items() for number in range(count)]


def write_chunk(folder: Place, config: CorpusConfig, chunk: int) -> int:
    """Write the videos of a chunk, then its rows; return its number of clips. A finished chunk is not made again."""
    clips = list_clips(config)[chunk * CLIPS_PER_CHUNK : (chunk + 1) * CLIPS_PER_CHUNK]
    part = _part(folder, chunk)
    if part.exists():
        return len(clips)
    rows = []
    for split, number in clips:
        generated = generate_clip(config, split, number)
        row = annotation_row(generated.clip)
        (folder / f"{VIDEOS_FOLDER}/{row['video']}").write_whole(generated.video)
        rows.append(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")
    part.write_whole("".join(rows))
    return len(clips)


def close_corpus(folder: Place, config: CorpusConfig) -> None:
    """Join the parts to the annotations, write the manifest and remove the work folder."""
    with (folder / ANNOTATIONS_NAME).open_whole() as stream:
        for chunk in range(num_chunks(config)):
            with _part(folder, chunk).open_stream() as part:
                shutil.copyfileobj(part, stream, _COPY_BYTES)
    _write_json(folder / MANIFEST_NAME, _manifest(config))
    with contextlib.suppress(OSError):  # the manifest counts; what is left of the work folder does no harm
        (folder / WORK_FOLDER).delete_folder()


def annotation_row(clip: Clip) -> dict[str, Any]:
    """Return the row of a clip in the columns that prepare reads; `video` is relative to the folder of videos."""
    return {
        "video": f"{clip.clip_id}.mp4",
        "clip_id": clip.clip_id,
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        "captions": [{"text": caption.text, "source": caption.source} for caption in clip.captions],
        "topic": clip.topic,
        "split": clip.split,
        "questions": list(clip.questions),
        "truth": clip.truth,
    }


def _manifest(config: CorpusConfig) -> dict[str, Any]:
    return {"hash": corpus_hash(config), "config": config.model_dump(mode="json")}


def _difference(found: dict[str, Any], config: CorpusConfig) -> str:
    wanted = config.model_dump(mode="json")
    differing = [
        f"{name} {found.get(name)} (wanted {value})" for name, value in wanted.items() if found.get(name) != value
    ]
    return ", ".join(differing) or "the same config from another version of the generator"


def _part(folder: Place, chunk: int) -> Place:
    return folder / f"{WORK_FOLDER}/parts/{chunk:06d}.jsonl"


def _read_json(place: Place) -> dict[str, Any] | None:
    try:
        return json.loads(place.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError("a file of the corpus is damaged", got=f"{place}", remedy="remove the folder") from error


def _write_json(place: Place, value: dict[str, Any]) -> None:
    place.write_whole(json.dumps(value, indent=1))
