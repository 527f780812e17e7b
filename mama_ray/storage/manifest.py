"""The manifest of a folder: size and hash of every file in it, by which it is known to be whole.

Checkpoints have one, written last, and with it every copy of one that is used as a model folder. A storage that fails
is no damage: it is a UserError of its own.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mama_ray.errors import UserError
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.retries import with_retries
from mama_ray.storage.small_files import MAX_RECORD_BYTES, FileFormError, check_form, parse_json, require_plain_name

MANIFEST = "manifest.json"
_READ_BYTES = 1 << 20
_MAX_FILES = 10_000
_Name = Annotated[str, AfterValidator(require_plain_name)]
_Read = TypeVar("_Read")


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class FileRecord(_Form):
    """What a manifest says of one file."""

    num_bytes: int = Field(ge=0, lt=1 << 63)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Selection(_Form):
    """The validation metric of a checkpoint."""

    metric: str = Field("", max_length=200)
    value: float | None = None


class Manifest(_Form):
    """The form of manifest.json; `files` maps names inside the folder, with slashes, to size and hash."""

    step: int = Field(ge=0, lt=1 << 63)
    selection: Selection | None = None
    files: dict[_Name, FileRecord] = Field(min_length=1, max_length=_MAX_FILES)


def read_manifest(place: Place) -> tuple[Manifest | None, str]:
    """Return a folder's manifest, or None and what is wrong with it. Raises UserError where the storage fails."""
    try:
        return check_form(Manifest, _read_content(place), place / MANIFEST), ""
    except FileNotFoundError:
        return None, f"{place}: no {MANIFEST}"
    except FileFormError as error:
        return None, f"{place}: {MANIFEST} is damaged ({error})"


def _read_content(place: Place) -> Any:
    return parse_json(_read(place / MANIFEST, partial(Place.read_bytes, max_bytes=MAX_RECORD_BYTES)), MANIFEST)


def verify_manifest(place: Place) -> str | None:
    """Return None when every file of the folder has its recorded size and hash, else what is wrong.

    Raises UserError where the storage fails.
    """
    manifest, trouble = read_manifest(place)
    return trouble if manifest is None else _first_difference(place, manifest.files)


def require_whole_model(directory: Path) -> None:
    """Raise UserError where a model folder has a manifest and a file of the model is not what it says.

    What only going on with the run takes, the optimisers and the step, may be missing: a model is often handed on
    without them. So may what the loaders name themselves when they miss it. A folder of other makers has no manifest,
    or another kind of one, and passes.
    """
    place = Place.of(directory)
    if not (directory / MANIFEST).exists() or _is_of_others(place):
        return
    manifest, trouble = read_manifest(place)
    if manifest is None:
        _refuse(trouble)
    else:
        there = {name for name in manifest.files if _is_of_the_model(name) and (directory / name).is_file()}
        problem = _first_difference(place, {name: manifest.files[name] for name in sorted(there)})
        if problem is not None:
            _refuse(problem)


def _refuse(problem: str) -> None:
    raise UserError(
        "damaged model folder",
        got=problem,
        wanted=f"the files that its {MANIFEST} names",
        remedy="copy the folder again, or take another checkpoint of the run",
    )


def _is_of_others(place: Place) -> bool:
    """Tell a manifest.json of another program: whole JSON that has not the fields of ours."""
    try:
        content = _read_content(place)
    except FileFormError:
        return False
    return not (isinstance(content, dict) and "step" in content and isinstance(content.get("files"), dict))


def _is_of_the_model(name: str) -> bool:
    return not name.endswith(".pt") and name != "train_state.json"


def _first_difference(place: Place, files: Mapping[str, FileRecord]) -> str | None:
    """Return what is wrong with the first file that is not as recorded; one of another size is not read."""
    for name, recorded in files.items():
        try:
            num_bytes, digest = _read(place / name, partial(_hash_file, expected_bytes=recorded.num_bytes))
        except FileNotFoundError:
            return f"{place}/{name}: missing"
        except FileFormError as error:
            return f"{place}/{name}: {error}"
        if num_bytes != recorded.num_bytes:
            return f"{place}/{name}: {num_bytes} bytes, manifest says {recorded.num_bytes}"
        if digest != recorded.sha256:
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


def _hash_file(place: Place, expected_bytes: int) -> tuple[int, str]:
    digest, num_bytes = hashlib.sha256(), 0
    with place.open_file() as file:
        if file.size() != expected_bytes:
            return file.size(), ""
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
            num_bytes += len(chunk)
    return num_bytes, digest.hexdigest()
