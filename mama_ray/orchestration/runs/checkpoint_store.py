"""Putting checkpoints into a run's storage, whole or not at all, and keeping the right ones.

Locally a finished folder is renamed into place. On object stores, which have no rename, files go up first and the
manifest last. Ray Train's own bookkeeping is not used: it counts a checkpoint seconds after its report, rewrites its
list in place (a kill in between ends every later resume), and a manifest in the storage itself needs neither.
"""

import contextlib
import logging
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from mama_ray.errors import UserError
from mama_ray.objectives.gather import gather_plain
from mama_ray.storage.manifest import MANIFEST, verify_manifest
from mama_ray.storage.places import Place, set_usual_modes
from mama_ray.storage.retries import with_retries
from mama_ray.training.manifest import (
    UPLOADING,
    best_checkpoint,
    latest_valid_checkpoint,
    list_checkpoints,
    step_directory,
)

logger = logging.getLogger(__name__)


@contextmanager
def staging_directory(run_folder: Place) -> Iterator[Path]:
    """Give a fresh local folder to write a checkpoint into; on the target's own disk where that is local."""
    if run_folder.is_local:
        parent = Path(run_folder.path) / "checkpoints"
        parent.mkdir(exist_ok=True)  # in the run's own folder alone: where its disk was taken away, there is none
        directory = parent / f".staging-{uuid.uuid4().hex[:8]}"
        directory.mkdir()  # with the permissions of any folder: mkdtemp's would be the checkpoint's
    else:
        directory = Path(tempfile.mkdtemp(prefix=".staging-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def publish_checkpoint(run_folder: Place, staged: Path, step: int) -> Place:
    """Make a staged folder, manifest included, the checkpoint of `step`; returns its place."""
    target = run_folder / f"checkpoints/{step_directory(step)}"
    if target.exists():
        _discard(target)  # left by an attempt that was cut off, or damaged and passed over
    if run_folder.is_local:
        set_usual_modes(staged, [path for path in staged.rglob("*") if path.is_file()])
        staged.rename(target.path)
        return target
    target.make_folder()
    _upload(None, target / UPLOADING)
    for path in sorted(path for path in staged.rglob("*") if path.is_file() and path.name != MANIFEST):
        _upload(path, target / path.relative_to(staged).as_posix())
    _upload(staged / MANIFEST, target / MANIFEST)
    _delete(target / UPLOADING)
    return target


def retain_checkpoints(run_folder: Place, num_to_keep: int, *, newest_step: int) -> None:
    """Delete old checkpoints, but never the newest `num_to_keep` nor the best by validation.

    Those that count are whole and not beyond `newest_step`, where the run stands: what lies beyond was found damaged
    when the run was resumed, and must neither push a whole one out nor be taken for the run's end. One that is whole
    after all stays: it may be another group's, which took over from a worker that was only slow.
    """
    refs = list_checkpoints(run_folder)
    whole = [ref for ref in refs if ref.problem is None and ref.step <= newest_step]
    newest = whole[-num_to_keep:]
    kept = {ref.place for ref in [*newest, best_checkpoint(whole)] if ref is not None}
    for ref in refs:
        # A manifest that cannot be read now may be readable again: what is newer than the kept ones stays.
        is_in_the_way = ref.problem is None or (newest and ref.step < newest[0].step)
        is_beyond = ref.step > newest_step
        if is_in_the_way and ref.place not in kept and not (is_beyond and verify_manifest(ref.place) is None):
            _discard(ref.place)


@contextmanager
def newest_checkpoint(run_folder: Place) -> Iterator[Path | None]:
    """Give the newest whole checkpoint as a local folder (downloaded if need be), or None for a new run."""
    ref = latest_valid_checkpoint(run_folder)
    if ref is None:
        yield None
    else:
        with ref.place.local() as local:
            yield local


def require_same_step(step: int, device: torch.device) -> None:
    """Raise UserError unless all ranks resume at one step; every rank must call it."""
    steps = gather_plain(torch.tensor([step], device=device)).tolist()
    if len(set(steps)) > 1:
        raise UserError("workers found different checkpoints", got=steps, remedy="give all nodes the same storage")


def remove_stale_staging(run_folder: Place) -> None:
    """Delete staging folders that killed processes left on a local disk."""
    if run_folder.is_local:
        for path in (Path(run_folder.path) / "checkpoints").glob(".staging-*"):
            shutil.rmtree(path, ignore_errors=True)


def publish_folder(target: Place, files: Sequence[Path], *, last: str) -> None:
    """Put files into a folder of the storage, in the place of what it held; `last` is the name of the one that makes
    it whole."""
    _delete(target / last)  # first, else a mixture of two would look whole
    target.make_folder()
    target.filesystem.delete_dir_contents(target.path, missing_dir_ok=True)
    for path in sorted(files, key=lambda path: (path.name == last, path.name)):
        _upload(path, target / path.name)


def _discard(target: Place) -> None:
    """Delete a checkpoint's folder; cut off at any point, it leaves nothing that looks like a checkpoint."""
    _upload(None, target / UPLOADING)
    files = set(target.files(recursive=True)) - {target / UPLOADING}
    for file in sorted(files, key=lambda file: (file != target / MANIFEST, file.path)):
        _delete(file)
    with_retries(lambda: target.delete_folder())


def _upload(source: Path | None, target: Place) -> None:
    """Write a file whole. Tried again from its start, which also helps where the answer to an upload's last request
    is lost: some stores no longer know the upload when that request comes again."""

    def upload() -> None:
        with target.filesystem.open_output_stream(target.path) as out:
            if source is not None:
                with source.open("rb") as stream:
                    shutil.copyfileobj(stream, out, length=8 << 20)

    with_retries(upload)


def _delete(place: Place) -> None:
    """Delete a file that may be gone: a delete whose answer was lost is tried again."""

    def delete() -> None:
        with contextlib.suppress(FileNotFoundError):
            place.delete_file()

    with_retries(delete)
