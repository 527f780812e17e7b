"""Putting checkpoints into a run's storage, whole or not at all, and keeping the right ones.

Locally a finished folder is renamed into place. On object stores, which have no rename, files go up first and the
manifest last. Ray Train's own bookkeeping is not used: it counts a checkpoint seconds after its report, rewrites its
list in place (a kill in between ends every later resume), and a manifest in the storage itself needs neither.
"""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow.fs as pafs
import torch

from mama_ray.errors import UserError
from mama_ray.objectives.gather import gather_plain
from mama_ray.storage.places import is_local, local_folder, make_folder
from mama_ray.storage.retries import with_retries
from mama_ray.training.manifest import (
    MANIFEST,
    UPLOADING,
    best_checkpoint,
    latest_valid_checkpoint,
    list_checkpoints,
    step_directory,
)

logger = logging.getLogger(__name__)


@contextmanager
def staging_directory(filesystem: pafs.FileSystem, run_path: str) -> Iterator[Path]:
    """Give a fresh local folder to write a checkpoint into; on the target's own disk where that is local."""
    parent = None
    if is_local(filesystem):
        parent = Path(run_path) / "checkpoints"
        parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=".staging-", dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def publish_checkpoint(filesystem: pafs.FileSystem, run_path: str, staged: Path, step: int) -> str:
    """Make a staged folder, manifest included, the checkpoint of `step`; returns its path in the storage."""
    target = f"{run_path}/checkpoints/{step_directory(step)}"
    if filesystem.get_file_info(target).type == pafs.FileType.Directory:
        _discard(filesystem, target)  # left by an attempt that was cut off, or damaged and passed over
    if is_local(filesystem):
        staged.rename(target)
        return target
    make_folder(filesystem, target)
    _upload(filesystem, None, f"{target}/{UPLOADING}")
    for path in sorted(path for path in staged.rglob("*") if path.is_file() and path.name != MANIFEST):
        _upload(filesystem, path, f"{target}/{path.relative_to(staged).as_posix()}")
    _upload(filesystem, staged / MANIFEST, f"{target}/{MANIFEST}")
    _delete(filesystem, f"{target}/{UPLOADING}")
    return target


def retain_checkpoints(filesystem: pafs.FileSystem, run_path: str, num_to_keep: int, *, newest_step: int) -> None:
    """Delete old checkpoints, but never the newest `num_to_keep` nor the best by validation.

    Those that count are whole and not beyond `newest_step`, where the run stands: what lies beyond was found damaged
    when the run was resumed, and must neither push a whole one out nor be taken for the run's end.
    """
    refs = list_checkpoints(filesystem, run_path)
    whole = [ref for ref in refs if ref.problem is None and ref.step <= newest_step]
    newest = whole[-num_to_keep:]
    kept = {ref.path for ref in [*newest, best_checkpoint(whole)] if ref is not None}
    for ref in refs:
        # A manifest that cannot be read now may be readable again: what is newer than the kept ones stays.
        is_in_the_way = ref.problem is None or (newest and ref.step < newest[0].step)
        if is_in_the_way and ref.path not in kept:
            _discard(filesystem, ref.path)


def _discard(filesystem: pafs.FileSystem, target: str) -> None:
    """Delete a checkpoint's folder; cut off at any point, it leaves nothing that looks like a checkpoint."""
    _upload(filesystem, None, f"{target}/{UPLOADING}")
    infos = filesystem.get_file_info(pafs.FileSelector(target, recursive=True, allow_not_found=True))
    files = {info.path for info in infos if info.is_file} - {f"{target}/{UPLOADING}"}
    for path in sorted(files, key=lambda path: (path != f"{target}/{MANIFEST}", path)):
        _delete(filesystem, path)
    with_retries(lambda: filesystem.delete_dir(target))


def remove_stale_staging(filesystem: pafs.FileSystem, run_path: str) -> None:
    """Delete staging folders that killed processes left on a local disk."""
    if is_local(filesystem):
        for path in (Path(run_path) / "checkpoints").glob(".staging-*"):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def newest_checkpoint(filesystem: pafs.FileSystem, run_path: str) -> Iterator[Path | None]:
    """Give the newest whole checkpoint as a local folder (downloaded if need be), or None for a new run."""
    ref = latest_valid_checkpoint(filesystem, run_path)
    if ref is None:
        yield None
    else:
        with local_folder(filesystem, ref.path) as local:
            yield local


def require_same_step(step: int, device: torch.device) -> None:
    """Raise UserError unless all ranks resume at one step; every rank must call it."""
    steps = gather_plain(torch.tensor([step], device=device)).tolist()
    if len(set(steps)) > 1:
        raise UserError("workers found different checkpoints", got=steps, remedy="give all nodes the same storage")


def publish_folder(filesystem: pafs.FileSystem, target: str, files: Sequence[Path], *, last: str) -> None:
    """Put files into a folder of the storage, in the place of what it held; `last` is the name of the one that makes
    it whole."""
    _delete(filesystem, f"{target}/{last}")  # first, else a mixture of two would look whole
    make_folder(filesystem, target)
    filesystem.delete_dir_contents(target, missing_dir_ok=True)
    for path in sorted(files, key=lambda path: (path.name == last, path.name)):
        _upload(filesystem, path, f"{target}/{path.name}")


def _upload(filesystem: pafs.FileSystem, source: Path | None, target: str) -> None:
    """Write a file whole. Tried again from its start, which also helps where the answer to an upload's last request
    is lost: some stores no longer know the upload when that request comes again."""

    def upload() -> None:
        with filesystem.open_output_stream(target) as out:
            if source is not None:
                with source.open("rb") as stream:
                    shutil.copyfileobj(stream, out, length=8 << 20)

    with_retries(upload)


def _delete(filesystem: pafs.FileSystem, path: str) -> None:
    """Delete a file that may be gone: a delete whose answer was lost is tried again."""

    def delete() -> None:
        with contextlib.suppress(FileNotFoundError):
            filesystem.delete_file(path)

    with_retries(delete)
