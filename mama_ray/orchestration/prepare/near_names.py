"""What a missing file may be called instead: names that differ in case, Unicode form or slashes only."""

import unicodedata
from functools import lru_cache

from mama_ray.data.clip import is_text
from mama_ray.orchestration.prepare.listing import names_in
from mama_ray.storage.places import Place

_NUM_FOLDERS = 16  # whose names are kept


def nearest_name(folder: Place, video: str) -> str | None:
    """Return the path of a file in the folder that a person would read as `video`; None where there is none.

    Folders are listed on a local disk alone: a listing of a large bucket takes minutes.
    """
    if not folder.is_local:
        return next((name for name in _other_forms(video) if name != video and (folder / name).is_file()), None)
    found: list[str] = []
    for part in video.replace("\\", "/").split("/"):
        names = _names_in("/".join([folder.uri, *found]))
        exact = part if part in names.values() else names.get(_folded(part))
        if exact is None:
            return None
        found.append(exact)
    name = "/".join(found)
    return name if name != video and (folder / name).is_file() else None


def _other_forms(video: str) -> list[str]:
    slashed = video.replace("\\", "/")
    stem, dot, extension = slashed.rpartition(".")
    cases = (slashed, slashed.lower(), f"{stem}{dot}{extension.lower()}", f"{stem}{dot}{extension.upper()}")
    return list(dict.fromkeys(unicodedata.normalize(form, case) for case in cases for form in ("NFC", "NFD")))


@lru_cache(maxsize=_NUM_FOLDERS)
def _names_in(uri: str) -> dict[str, str]:
    """Folded name to name of all that lies in a folder."""
    try:
        return {_folded(name): name for name in names_in(Place.of(uri)) if is_text(name)}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
