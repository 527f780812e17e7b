"""When a checkpoint counts, and how it is found: the manifest, written last, tells size and hash of every file.

A checkpoint without a valid manifest does not exist; a damaged one is named and passed over.
"""

import hashlib
import json
import logging
import math
import re
from dataclasses import dataclass
from pathlib import Path

from mama_ray.errors import UserError
from mama_ray.storage.manifest import MANIFEST, read_manifest, verify_manifest
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)
UPLOADING = ".uploading"  # stands in a remote checkpoint folder until its manifest does
_STEP_DIRECTORY = re.compile(r"step_(\d{8})")


@dataclass(frozen=True)
class CheckpointRef:
    """A checkpoint folder; `problem` says why it cannot count (files are checked by verify_manifest, not here)."""

    place: Place
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


def list_checkpoints(run_folder: Place) -> list[CheckpointRef]:
    """Return a run's checkpoint folders, oldest first; files are not hashed here.

    A folder whose upload was cut off never was a checkpoint and is left out; one that merely lost its manifest is
    damaged.
    """
    folder, found = run_folder / "checkpoints", []
    for info in folder.entries():
        match = _STEP_DIRECTORY.fullmatch(info.base_name)
        if not match:
            continue
        place = folder / info.base_name
        manifest, trouble = read_manifest(place)
        if manifest is not None:
            value = manifest.selection.value if manifest.selection else None
            is_number = value is not None and math.isfinite(value)
            found.append(CheckpointRef(place, int(match[1]), value if is_number else None))
        elif not (place / UPLOADING).exists():
            found.append(CheckpointRef(place, int(match[1]), None, trouble))
    return sorted(found, key=lambda ref: ref.step)


def latest_valid_checkpoint(run_folder: Place) -> CheckpointRef | None:
    """Return the newest checkpoint whose files agree with its manifest; every one passed over is named in the log.

    None means that the run has no checkpoint at all. Checkpoints that are all damaged are an error, never a fresh
    start.
    """
    refs = list_checkpoints(run_folder)
    problems = []
    for ref in reversed(refs):
        problem = ref.problem or verify_manifest(ref.place)
        if problem is None:
            return ref
        problems.append(problem)
        logger.warning("damaged checkpoint passed over: %s", problem)
    if problems:
        raise UserError(
            f"every checkpoint of {run_folder} is damaged",
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


def resolve_checkpoint(place: Place) -> Place:
    """Return the model directory that a user's path means: a checkpoint, or a run's best one by validation."""
    if (place / "config.json").is_file():
        return place
    best = best_checkpoint(list_checkpoints(place))
    if best is None:
        raise UserError(
            "no checkpoint", got=f"{place}", wanted="a run folder with checkpoints/step_*, or a model directory"
        )
    return best.place
