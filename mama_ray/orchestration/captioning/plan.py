"""What a captioning job is to do and what is done: loaded and scanned in tasks, so the driver holds counts alone."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import ray

from mama_ray.captioning.engines.captioner import Captioner, inspect_captioner
from mama_ray.captioning.engines.generation import EngineConfig, EngineName, SamplingConfig
from mama_ray.captioning.narrator.folder import INPUT_FILE, embedded_narrator, read_narrator_input
from mama_ray.captioning.pictures.settings import ClipShowConfig
from mama_ray.captioning.prompts import PromptConfig
from mama_ray.data.contents import hash_in_order
from mama_ray.data.index import select_split
from mama_ray.data.index_file import open_index
from mama_ray.data.index_rows import IndexRows, choose_rows
from mama_ray.data.synthetic.recognise import count_other_clips
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.errors import UserError
from mama_ray.models.hub import require_weights, revision_of
from mama_ray.orchestration.captioning.job import EMBEDDED
from mama_ray.orchestration.captioning.parts import CHUNK_CLIPS
from mama_ray.orchestration.captioning.pending import PendingChunks, find_pending
from mama_ray.orchestration.captioning.source import ClipSource, ShardSource, ShowConfig
from mama_ray.orchestration.cluster import row_server
from mama_ray.orchestration.cluster.connect import start_worker_logging
from mama_ray.orchestration.cluster.model_source import model_folder
from mama_ray.orchestration.cluster.named_configs import load_named
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)

_DEFAULT_PROMPT = "sentence"
COLUMNS = ("clip_id", "shard", "offset", "num_bytes", "sha256")
_TASK_CPUS = 0.5
_TRANSFORMERS_CPUS = 1.0


@dataclass(frozen=True)
class CaptionPlan:
    """What tasks and actors need to know; picklable and small.

    `table` refers to the rows of the clips, in order: clip_id, sha256 of each video, and whatever else its source needs
    to show it; a table, or what takes rows as a table does.
    """

    table: ray.ObjectRef
    num_clips: int
    ids_sha256: str
    source: ClipSource
    output: str
    model: str | None
    captioner: Captioner
    show: ShowConfig
    sampling: SamplingConfig
    engine: EngineConfig
    chunk_clips: int = CHUNK_CLIPS


def load_clips(shards: str, split: str | None) -> tuple[ray.ObjectRef, int, str, ShardSource]:
    """Check the shards; return the job's rows (a reference), the number of clips, a hash of them, and their source.

    Raises UserError for whatever is wrong with index and shards, and where there is no clip.
    """
    rows, facts = _load_clips.options(num_returns=2).remote(shards, split, row_server.MAX_HELD_ROWS)
    num_clips, num_shards, ids_sha256 = result_of(facts, rows)
    rows = row_server.shared_rows(rows, num_clips, COLUMNS)
    return rows, num_clips, ids_sha256, ShardSource(shards, num_shards)


def require_embedded(shards: str, split: str | None) -> None:
    """Raise UserError unless every clip is of the embedded corpus, the only one that the embedded narrator knows."""
    result_of(_require_embedded.remote(shards, split))


def find_captioner(
    model: str | None,
    prompt: PromptConfig | None,
    *,
    frames: ClipShowConfig,
    side: int | None,
    engine: EngineName = "auto",
) -> Captioner:
    """Check the model's folder and the prompt, in a task: it takes packages and memory that the driver need not have.

    Without a prompt it is the one that a narrator was trained with, or MAMA's. Raises UserError for what cannot be
    served.
    """
    fallback = load_named(PromptConfig, "prompt", _DEFAULT_PROMPT)
    return result_of(_find_captioner.remote(model, prompt, fallback, frames, side, engine))


def how_to_show(captioner: Captioner, frames: ClipShowConfig, decode: DecodeConfig) -> ShowConfig:
    """Return how clips are shown to a captioner that was found for these `frames`."""
    shown = (captioner.shows, captioner.side, captioner.num_frames)
    return ShowConfig(*shown, frames.grid_config(), decode, captioner.interpolation)


def scan_pending(plan: CaptionPlan) -> PendingChunks:
    """List the committed parts and return what is left."""
    return find_pending(plan.output, plan.num_clips, chunk_clips=plan.chunk_clips)


@contextmanager
def planned_folder(plan: CaptionPlan) -> Iterator[Path]:
    """Give a local folder of the plan's model; UserError where its weights are others than when the job began."""
    with captioner_folder(plan.model, revision=plan.captioner.revision) as folder:
        require_weights(folder, plan.captioner.weights_sha256, plan.model)
        yield folder


@contextmanager
def captioner_folder(model: str | None, *, revision: str | None = None) -> Iterator[Path]:
    """Give a local folder of the model: a path, a URI (downloaded for as long as it is used), a hub id, or the embedded
    narrator for None.
    """
    if model is None:
        yield embedded_narrator()
    elif "://" not in model and model.startswith("/"):  # a path, also where nothing is: its absence is told as such
        yield Path(model)
    else:
        with model_folder(model, revision=revision) as folder:
            yield folder


@ray.remote(num_cpus=_TASK_CPUS, name="caption: look at clips")
def _load_clips(shards: str, split: str | None, max_held: int) -> tuple[pa.Table | IndexRows, tuple[int, int, str]]:
    """Return the rows of a job, as a table where they are at most `max_held`."""
    try:
        rows, names = choose_rows(Place.of(shards), split, COLUMNS)
        if not len(rows):
            raise UserError("no clips to caption", got=f"{shards}, split {split or 'any'}", wanted="at least one clip")
        sha256 = hash_in_order(rows)
        table = rows.read() if len(rows) <= max_held else rows
    except OSError as error:
        detail = " ".join(str(error).split())
        remedy = "check the URI, the network and the credentials in the environment"
        raise UserError("the shards cannot be read", got=f"{shards} ({detail})", remedy=remedy) from error
    return table, (len(rows), names, sha256)


@ray.remote(num_cpus=_TASK_CPUS)
def _require_embedded(shards: str, split: str | None) -> None:
    index = open_index(Place.of(shards))
    num_others = 0
    for table in index.tables(("truth", "split")):
        num_others += count_other_clips((table if split is None else select_split(table, split))["truth"])
        if num_others:  # all the same how many
            break
    if num_others:
        raise UserError(
            "the embedded narrator knows the embedded corpus alone, and would write nonsense of these clips",
            got=f"no --model, and {shards} with at least {num_others} clips of other videos",
            remedy=f"name a captioner, such as --model llava-hf/llava-1.5-7b-hf, or say --model {EMBEDDED} to use it",
        )


@ray.remote(num_cpus=_TRANSFORMERS_CPUS)
def _find_captioner(
    model: str | None,
    prompt: PromptConfig | None,
    fallback: PromptConfig,
    frames: ClipShowConfig,
    side: int | None,
    engine: EngineName,
) -> Captioner:
    start_worker_logging()
    try:
        with captioner_folder(model) as folder:
            trained = read_narrator_input(folder)
            if trained and (trained.grid != frames.grid_config() or prompt not in (None, trained.prompt)):
                logger.warning("the narrator was trained with another grid or prompt: see %s", INPUT_FILE)
            asked = prompt or (trained.prompt if trained else fallback)
            found = inspect_captioner(folder, asked, side, frames=frames, engine=engine)
            if prompt is not None and not found.prompt:
                raise UserError(f"a {found.architecture} is asked nothing", got="a prompt", remedy="leave --prompt out")
            return replace(found, revision=revision_of(folder))
    except OSError as error:
        raise UserError("the model cannot be read", got=f"{model} ({' '.join(str(error).split())})") from error
