"""The manifest of a folder: size and hash of every file in it, by which it is known to be whole.

Checkpoints have one, written last, and with it every copy of one that is used as a model folder. A storage that fails
is no damage: it is a UserError of its own.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mama_ray.errors import UserError
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.retries import with_retries

MANIFEST = "manifest.json"
_READ_BYTES = 1 << 20
_Read = TypeVar("_Read")


def read_manifest(place: Place) -> tuple[dict | None, str]:
    """Return a folder's manifest, or None and what is wrong with it. Raises UserError where the storage fails."""
    try:
        manifest = json.loads(_read(place / MANIFEST, Place.read_bytes))
    except FileNotFoundError:
        return None, f"{place}: no {MANIFEST}"
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None, f"{place}: {MANIFEST} is damaged"
    is_ours = isinstance(manifest, dict) and isinstance(manifest.get("files"), dict)
    return (manifest, "") if is_ours else (None, f"{place}: {MANIFEST} is damaged")


def verify_manifest(place: Place) -> str | None:
    """Return None when every file of the folder has its recorded size and hash, else what is wrong.

    Raises UserError where the storage fails.
    """
    manifest, trouble = read_manifest(place)
    return trouble if manifest is None else _first_difference(place, manifest["files"])


def require_whole_model(directory: Path) -> None:
    """Raise UserError where a model folder has a manifest and a file of the model is not what it says.

    What only going on with the run takes, the optimisers and the step, may be missing: a model is often handed on
    without them. So may what the loaders name themselves when they miss it. A folder of other makers has no manifest,
    or another kind of one, and passes.
    """
    place = Place.of(directory)
    manifest, trouble = read_manifest(place)
    if manifest is None and (directory / MANIFEST).is_file() and not _is_of_others(directory):
        _refuse(trouble)
    if manifest is not None and "step" in manifest:
        there = {name for name in manifest["files"] if _is_of_the_model(name) and (directory / name).is_file()}
        problem = _first_difference(place, {name: manifest["files"][name] for name in sorted(there)})
        if problem is not None:
            _refuse(problem)


def _refuse(problem: str) -> None:
    raise UserError(
        "damaged model folder",
        got=problem,
        wanted=f"the files that its {MANIFEST} names",
        remedy="copy the folder again, or take another checkpoint of the run",
    )


def _is_of_others(directory: Path) -> bool:
    """Tell a manifest.json of another program: whole JSON that lists no files as ours does."""
    try:
        json.loads((directory / MANIFEST).read_bytes())
    except ValueError:
        return False
    return True


def _is_of_the_model(name: str) -> bool:
    return not name.endswith(".pt") and name != "train_state.json"


def _first_difference(place: Place, files: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return what is wrong with the first file that is not as recorded."""
    for name, recorded in files.items():
        try:
            num_bytes, digest = _read(place / name, _hash_file)
        except FileNotFoundError:
            return f"{place}/{name}: missing"
        if num_bytes != recorded["num_bytes"]:
            return f"{place}/{name}: {num_bytes} bytes, manifest says {recorded['num_bytes']}"
        if digest != recorded["sha256"]:
            return f"{place}/{name}: content differs from the manifest's sha256"
    return None


def _read(place: Place, read: Callable[[Place], _Read]) -> _Read:
    """Read a file, again where the storage fails for a moment; FileNotFoundError comes out as itself."""
    try:
        return with_retries(lambda: read(place))
    except FileNotFoundError:
        raise
    except OSError:
        with storage_errors(place.uri):
            raise
        raise AssertionError("unreachable") from None


def _hash_file(place: Place) -> tuple[int, str]:
    digest, num_bytes = hashlib.sha256(), 0
    with place.open_stream() as stream:
        while chunk := stream.read(_READ_BYTES):
            digest.update(chunk)
            num_bytes += len(chunk)
    return num_bytes, digest.hexdigest()
