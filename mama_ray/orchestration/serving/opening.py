"""Opening all that the app was given, and finding out what is missing.

What was given and cannot be used ends the start in one line. What was not given is no fault: the page says what it is
good for and how to get it.
"""

import hashlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mama_ray.auditing.table import AUDIT_NAME
from mama_ray.data.index import read_index
from mama_ray.data.synthetic.recognise import count_other_clips
from mama_ray.errors import UserError
from mama_ray.models.hub import EMBEDDED_ENCODER, require_hub_id, without_prefix
from mama_ray.orchestration.captioning.job import EMBEDDED
from mama_ray.orchestration.cluster.model_source import look_at_model
from mama_ray.orchestration.serving.catalog import open_catalog
from mama_ray.orchestration.serving.job import AppJob
from mama_ray.orchestration.serving.state import AppState
from mama_ray.search.embedding_parts import IDENTITY_NAME, read_identity
from mama_ray.storage.first_look import ensure_readable
from mama_ray.storage.places import Place, join_uri, storage_errors

if TYPE_CHECKING:
    from mama_ray.search.index import SearchIndex
    from mama_ray.search.towers import Towers

logger = logging.getLogger(__name__)

_INDEX_FOLDER = "index"


def open_state(job: AppJob, token: str | None = None) -> AppState:
    """Open all that was given. Raises UserError for what cannot be used."""
    ensure_readable(job.shards, *job.captions, job.index, job.audit, job.narrator)
    if job.run is not None:
        ensure_readable(without_prefix(job.run))
        _look_at_run(job.run)
    if job.narrator != EMBEDDED:
        look_at_model(job.narrator)
    audit = _audit_folder(job.audit)
    shards = Place.of(job.shards or _embedded_shards(job))
    with storage_errors(shards.uri):
        catalog = open_catalog(shards, job.captions)
    if catalog.num_foreign:
        logger.warning(
            "%d captions of the tables are left out: they are of clips that the corpus does not have, or were written "
            "from other videos than those of its clips",
            catalog.num_foreign,
        )
    state = AppState(job, shards, catalog, Path(job.data), token, narrator=job.narrator, audit_folder=audit)
    if job.run is not None:
        _open_index(state, job.run)
    else:
        _leave_ray()
    state.missing = find_missing(state)
    return state


def find_missing(state: AppState) -> dict[str, str]:
    """Return by capability what is missing and how to get it."""
    job, missing = state.job, {}
    shards = "" if job.shards is None else " --shards ..."
    if state.index is None:
        missing["search"] = (
            f"Search needs an encoder: start the app with --run RUN, a run of jobs/train.py{shards} or any CLIP of the "
            f"Hugging Face hub (--run hf:openai/clip-vit-base-patch32), or with --run {EMBEDDED_ENCODER} to try it on "
            "the embedded corpus."
        )
    if not job.captions:
        missing["captions"] = (
            f"There are no generated captions: write some with jobs/caption.py{shards} --output TABLE, and start the "
            "app with --captions TABLE."
        )
    if state.narrator is None:
        missing["narrate"] = (
            "Narration needs a captioner: start the app with --narrator MODEL, as jobs/narrate.py takes it, or with "
            f"--narrator {EMBEDDED} to try it on a film of the embedded corpus."
        )
    if state.audit_folder is None:
        missing["weights"] = (
            "The weights need a run that has recorded them: jobs/train.py with --record.every 1, then jobs/audit.py on "
            "that run, and the app with --audit FOLDER."
        )
    return missing


def _open_index(state: AppState, run: str) -> None:
    """Load the encoder and its index, which is made first where it is not there."""
    job, folder = state.job, state.job.index
    if run == EMBEDDED_ENCODER and job.shards is not None:
        warn_of_unknown(state.shards)
    if folder is None:
        folder = _make_index(state, run)
    _leave_ray()
    if not job.cluster.num_replicas:
        state.towers, state.index = _open_here(run, folder, job.search)
    else:
        from mama_ray.orchestration.serving.cluster import open_on_cluster

        state.towers, state.index = open_on_cluster(run, folder, job.cluster, job.search)
    known = int((state.catalog.rows_of(state.index.clip_ids) >= 0).sum())
    if known == 0 and len(state.catalog):
        raise UserError("the index is of other shards", got=folder, wanted=f"an index of {state.shards.uri}")
    logger.info("the index has %d of %d clips", known, len(state.catalog))


def _open_here(run: str, folder: str, kind: Literal["exact", "approximate"]) -> tuple["Towers", "SearchIndex"]:
    """Load encoder and index into this process. UserError where they cannot be used together."""
    from mama_ray.search.approximate import build_index  # after --help
    from mama_ray.search.embedding_table import EmbeddingTable
    from mama_ray.search.towers import Towers

    logger.info("loading the encoder %s", run)
    towers = Towers.load(run)
    table = EmbeddingTable.open(folder)
    table.require_model(towers.model_hash)
    return towers, build_index(table, kind)


def _make_index(state: AppState, run: str) -> str:
    """Make the app's own index of a model, or add to it what is new; returns its folder."""
    from mama_ray.orchestration.indexing.job import IndexJob, with_absolute_paths
    from mama_ray.orchestration.indexing.run import make_index

    job = with_absolute_paths(IndexJob(shards=state.shards.uri, model=run, captions=state.job.captions))
    folder = own_index(state.job.data, job.model)
    logger.info("%s", make_index(job.model_copy(update={"output": folder})))
    return folder


def warn_of_unknown(shards: Place) -> None:
    """Warn where clips are none of the embedded corpus, the only one that the encoder of the package knows."""
    with storage_errors(shards.uri):
        num_others = count_other_clips(read_index(shards, columns=("truth",))["truth"])
    if num_others:
        logger.warning(
            "the encoder that comes with the package knows the embedded corpus alone: among at least %d clips of other "
            "videos it finds nothing of sense; name a model with --run, such as hf:openai/clip-vit-base-patch32",
            num_others,
        )


def own_index(data: str, model: str) -> str:
    """Return where the app keeps the index of a model: `index` of the first, another folder for each of the others."""
    folder = Place.of(join_uri(data, _INDEX_FOLDER))
    if (folder / IDENTITY_NAME).is_file() and read_identity(folder).model != model:
        folder = Place.of(f"{folder.uri}-{hashlib.sha256(model.encode()).hexdigest()[:8]}")
    return folder.uri


def _embedded_shards(job: AppJob) -> str:
    from mama_ray.orchestration.prepare.embedded import embedded_shards

    return embedded_shards(job.corpus, str(Path(job.data).parent))


def _leave_ray() -> None:
    """End the Ray that a job before the app has started: the pages need none, and it holds a gigabyte."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()


def _look_at_run(run: str) -> None:
    source = without_prefix(run)
    if "://" not in source and not os.path.exists(os.path.expanduser(source)):
        require_hub_id(source)


def _audit_folder(uri: str | None) -> Place | None:
    if uri is None:
        return None
    folder = Place.of(uri)
    with storage_errors(uri):
        if not (folder / AUDIT_NAME).is_file():
            raise UserError("no audit of a run", got=uri, wanted=AUDIT_NAME, remedy="write it with jobs/audit.py")
    return folder
