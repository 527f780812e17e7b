"""When a checkpoint counts, and how it is found: the manifest, written last, tells size and hash of every file.

A checkpoint without a valid manifest does not exist; a damaged one is named and passed over.
"""

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from mama_ray.errors import UserError

logger = logging.getLogger(__name__)
MANIFEST = "manifest.json"
UPLOADING = ".uploading"  # stands in a remote checkpoint folder until its manifest does
_STEP_DIRECTORY = re.compile(r"step_(\d{8})")
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class CheckpointRef:
    """A checkpoint folder; `problem` says why it cannot count (files are checked by verify_manifest, not here)."""

    path: str
    step: int
    selection: float | None
    problem: str | None = None


def step_directory(step: int) -> str:
    """Return the folder name of a checkpoint."""
    return f"step_{step:08d}"


def write_manifest(directory: Path, *, step: int, selection: dict | None) -> None:
    """Write the manifest of all files in a finished local checkpoint folder."""
    files = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST):
        with path.open("rb") as stream:
            files[path.relative_to(directory).as_posix()] = {
                "num_bytes": path.stat().st_size,
                "sha256": hashlib.file_digest(stream, "sha256").hexdigest(),
            }
    manifest = {"version": 1, "step": step, "selection": selection, "files": files}
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1))


def verify_manifest(filesystem: pafs.FileSystem, path: str) -> str | None:
    """Return None when every file of the checkpoint has its recorded size and hash, else what is wrong."""
    manifest, trouble = _try_manifest(filesystem, path)
    if manifest is None:
        return trouble
    for name, recorded in manifest["files"].items():
        try:
            num_bytes, digest = _hash_file(filesystem, f"{path}/{name}")
        except FileNotFoundError:
            return f"{path}/{name}: missing"
        except OSError as error:
            return f"{path}/{name}: {error}"
        if num_bytes != recorded["num_bytes"]:
            return f"{path}/{name}: {num_bytes} bytes, manifest says {recorded['num_bytes']}"
        if digest != recorded["sha256"]:
            return f"{path}/{name}: content differs from the manifest's sha256"
    return None


def checkpoint_hash(filesystem: pafs.FileSystem, path: str) -> str | None:
    """Return the SHA-256 of model.safetensors as the manifest records it, None where there is no manifest."""
    manifest, _ = _try_manifest(filesystem, path)
    return manifest["files"]["model.safetensors"]["sha256"] if manifest else None


def list_checkpoints(filesystem: pafs.FileSystem, run_path: str) -> list[CheckpointRef]:
    """Return a run's checkpoint folders, oldest first; files are not hashed here.

    A folder whose upload was cut off never was a checkpoint and is left out; one that merely lost its manifest is
    damaged.
    """
    selector = pafs.FileSelector(f"{run_path}/checkpoints", allow_not_found=True)
    found = []
    for info in filesystem.get_file_info(selector):
        match = _STEP_DIRECTORY.fullmatch(info.base_name)
        if not match:
            continue
        manifest, trouble = _try_manifest(filesystem, info.path)
        if manifest is not None:
            value = (manifest.get("selection") or {}).get("value")
            found.append(CheckpointRef(info.path, int(match[1]), value))
        elif filesystem.get_file_info(f"{info.path}/{UPLOADING}").type == pafs.FileType.NotFound:
            found.append(CheckpointRef(info.path, int(match[1]), None, trouble))
    return sorted(found, key=lambda ref: ref.step)


def latest_valid_checkpoint(filesystem: pafs.FileSystem, run_path: str) -> CheckpointRef | None:
    """Return the newest checkpoint whose files agree with its manifest; every one passed over is named in the log.

    None means that the run has no checkpoint at all. Checkpoints that are all damaged are an error, never a fresh
    start.
    """
    refs = list_checkpoints(filesystem, run_path)
    problems = []
    for ref in reversed(refs):
        problem = ref.problem or verify_manifest(filesystem, ref.path)
        if problem is None:
            return ref
        problems.append(problem)
        logger.warning("damaged checkpoint passed over: %s", problem)
    if problems:
        raise UserError(
            f"every checkpoint of {run_path} is damaged",
            got="; ".join(problems),
            wanted="at least one whole checkpoint",
            remedy="restore one, or start under another run name",
        )
    return None


def best_checkpoint(refs: list[CheckpointRef]) -> CheckpointRef | None:
    """Return the checkpoint with the highest validation metric (of equals the newest), or the newest without metric."""
    whole = [ref for ref in refs if ref.problem is None]
    scored = [ref for ref in whole if ref.selection is not None]
    if scored:
        return max(scored, key=lambda ref: (ref.selection, ref.step))
    return whole[-1] if whole else None


def resolve_checkpoint(filesystem: pafs.FileSystem, path: str) -> str:
    """Return the model directory that a user's path means: a checkpoint, or a run's best one by validation."""
    if filesystem.get_file_info(f"{path}/config.json").type == pafs.FileType.File:
        return path
    best = best_checkpoint(list_checkpoints(filesystem, path))
    if best is None:
        raise UserError("no checkpoint", got=path, wanted="a run folder with checkpoints/step_*, or a model directory")
    return best.path


def _try_manifest(filesystem: pafs.FileSystem, path: str) -> tuple[dict | None, str]:
    """Return a checkpoint's manifest, or None and what is wrong with it."""
    try:
        with filesystem.open_input_stream(f"{path}/{MANIFEST}") as stream:
            manifest = json.loads(stream.read())
        return (manifest, "") if isinstance(manifest.get("files"), dict) else (None, f"{path}: {MANIFEST} is damaged")
    except (ValueError, AttributeError):
        return None, f"{path}: {MANIFEST} is damaged"
    except FileNotFoundError:
        return None, f"{path}: no {MANIFEST}"
    except OSError as error:
        return None, f"{path}/{MANIFEST}: {' '.join(str(error).split())}"


def _hash_file(filesystem: pafs.FileSystem, path: str) -> tuple[int, str]:
    digest, num_bytes = hashlib.sha256(), 0
    with filesystem.open_input_stream(path) as stream:
        while chunk := stream.read(_READ_BYTES):
            digest.update(chunk)
            num_bytes += len(chunk)
    return num_bytes, digest.hexdigest()
