"""What a prepare has to do: all parts of a new one, those that a killed one left, or what was mended since it ended."""

from dataclasses import dataclass
from typing import Any

from mama_ray.config import decisive_values
from mama_ray.data.annotations import look_at_table
from mama_ray.data.index import read_index, shard_sizes
from mama_ray.data.narrations.egoclip import is_egoclip, read_egoclip
from mama_ray.data.shard import shard_folder
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.chunks import clips_of, write_chunks
from mama_ray.orchestration.prepare.foreign import ForeignShard, list_shards
from mama_ray.orchestration.prepare.inputs import (
    State,
    inputs_of,
    read_summary,
    shards_to_walk,
    start_work,
    state_of,
)
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.parts import SUMMARY_NAME, WORK_FOLDER, part_name
from mama_ray.orchestration.prepare.repair import mended, next_chunk, quarantined_rows
from mama_ray.orchestration.prepare.rows import RefusedRow
from mama_ray.orchestration.prepare.videos import VideoWork
from mama_ray.storage.places import Place, storage_errors


@dataclass(frozen=True)
class Plan:
    """One task for each part.

    Attributes:
        names: of the parts, in the order of their shards.
        shards: of each part the foreign shard; empty where parts are made from videos.
        chunks: the numbers of the chunks, each of a part; empty for foreign shards.
        mends: the parts come beside what a finished index holds.
    """

    names: list[str]
    shards: list[str]
    chunks: range
    mends: bool


@dataclass(frozen=True)
class _Work:
    """What is left to do.

    Attributes:
        inputs: what names the inputs, for the work folder.
        shards: foreign ones to walk.
        only: clips to take in; None is all.
        first: number of the first chunk.
    """

    inputs: dict[str, Any]
    mends: bool
    shards: list[ForeignShard]
    only: set[str] | None = None
    first: int = 0


def look_at_annotations(config: PrepareJob) -> None:
    """Raise UserError for annotations that cannot be used, from their first rows."""
    assert config.annotations is not None
    place = Place.of(config.annotations)
    with storage_errors(config.annotations):
        if config.annotations_format == "egoclip":
            next(read_egoclip(place))
        elif is_egoclip(place):
            raise UserError("the annotations are EgoClip's", got=place, remedy="add --annotations_format egoclip")
        else:
            look_at_table(place, unknown_columns=config.unknown_columns)


def is_prepared(config: PrepareJob) -> bool:
    """Tell whether all of it is done. Writes nothing, and raises as `make_plan` does."""
    folder = Place.of(config.shards or config.output)
    return (folder / SUMMARY_NAME).is_file() and _find_work(config, folder) is None


def make_plan(config: PrepareJob) -> Plan | None:
    """Look at inputs and output and write what the tasks need; None when all of it is done.

    Raises UserError for inputs that cannot be used, and where the output belongs to others.
    """
    folder = Place.of(config.shards or config.output)
    work = _find_work(config, folder)
    if work is None:
        return None
    start_work(folder, work.inputs, mends=work.mends, is_spread=config.shard_folders > 0)
    if config.shards:
        names = [shard.part_name for shard in work.shards]
        return Plan(names, [shard.name for shard in work.shards], range(0), work.mends)
    try:
        chunks = write_chunks(video_work(config), first=work.first, only=work.only)
    except UserError:
        (folder / WORK_FOLDER).delete_folder()  # the table will be another one: nothing here is of use
        raise
    in_order = sorted(chunks, key=lambda number: (shard_folder(number, config.shard_folders), number))
    return Plan([part_name(number) for number in in_order], [], chunks, work.mends)


def _find_work(config: PrepareJob, folder: Place) -> _Work | None:
    refused = config.damaged_shards == "refuse"
    shards = list_shards(config.shards, compressed_are_refused=refused) if config.shards else []
    inputs = inputs_of(decisive_values(config), shards, config.videos, config.annotations)
    state = state_of(folder, inputs, foreign=bool(config.shards))
    mends = state in ("finished", "mending")
    if not config.shards:
        return _find_videos(config, folder, inputs, state)
    if mends:
        summary = read_summary(folder)
        assert summary is not None  # else the state is another
        known = summary["inputs"].get("shards", inputs["shards"])
        shards = shards_to_walk(shards, known, shard_sizes(read_index(folder, ["shard"])))
        if not shards and state == "finished":
            return None
    return _Work(inputs, mends, shards)


def pairs_by_an_older_rule(folder: Place) -> bool:
    """Whether an index of foreign shards is from when a text went to any video of its key, up to the first dot."""
    return "settings" not in (read_summary(folder) or {}).get("inputs", {})


def _find_videos(config: PrepareJob, folder: Place, inputs: dict[str, Any], state: State) -> _Work | None:
    mends = state in ("finished", "mending")
    only, first = None, 0
    if mends and not (folder / f"{WORK_FOLDER}/chunks/finished.json").exists():
        only = _clips_to_take(video_work(config), folder)
        if not only and state == "finished":
            return None
        first = next_chunk(shard_sizes(read_index(folder, ["shard"])), config.shard_name)
    return _Work(inputs, mends, [], only, first)


def _clips_to_take(work: VideoWork, folder: Place) -> set[str]:
    """The clips that a finished prepare refused for their files, which are others now; of a folder, new ones, too."""
    videos = Place.of(work.videos)
    again, refused = set(), set()  # of a folder, a clip_id may be another video's by now
    for some in quarantined_rows(folder):
        again |= {row["clip_id"] for row in mended(videos, some)}
        refused |= {(row["video"], row["clip_id"]) for row in some}
    if work.annotations is not None and not work.cuts_scenes:
        return again
    rows = (clip for clip in clips_of(work) if not isinstance(clip, RefusedRow))
    clips = {clip.clip_id: (clip.video, clip.video_id) for clip in rows}
    again &= clips.keys()  # a scene that was refused is none of them: the others of its video are there
    if work.annotations is not None:
        return again
    indexed = set(read_index(folder, ["video_id"])["video_id"].to_pylist())
    return {
        clip_id
        for clip_id, (video, video_id) in clips.items()
        if video_id not in indexed and (clip_id in again or (video, clip_id) not in refused)
    }


def video_work(config: PrepareJob) -> VideoWork:
    """Return what the tasks of a prepare from videos need of its config."""
    assert config.videos is not None  # see run._complete
    return VideoWork(
        config.videos,
        config.annotations,
        config.output,
        config.clips_per_shard,
        config.shard_name,
        config.default_split,
        config.unknown_columns,
        config.num_trial_frames,
        config.decode,
        split=config.split,
        scenes=config.scenes,
        window=config.window,
        annotations_format=config.annotations_format,
        transcode=config.transcode,
        shard_folders=config.shard_folders,
    )
