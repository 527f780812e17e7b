"""Small files of others, read within bounds: regular files only, no more bytes than their kind has, JSON of a schema.

Whoever can write a folder can put a pipe, a device, gigabytes or a million brackets in the place of a page of JSON.
"""

import json
import os
import stat
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from mama_ray.errors import UserError, printable

MAX_SETTINGS_BYTES = 1 << 20  # config.yaml, prompts: a page or two of text
MAX_RECORD_BYTES = 16 << 20  # manifests, config.json, train_state.json
MAX_JSON_BYTES = 32 << 20  # what grows with the data: results, summaries, a tokenizer's vocabulary
MAX_FILE_BYTES = 1 << 30  # what is read at once of anything else: metrics, a part of a table, a study
MAX_DEPTH = 64  # levels of JSON
_MAX_NAME = 1024
_READ_BYTES = 1 << 20


class FileFormError(UserError):
    """A small file that is not what its kind is: a device, too large, damaged, of another form."""


class FileTooLarge(FileFormError):
    """More bytes than a file of its kind has."""


_ModelT = TypeVar("_ModelT", bound=BaseModel)
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def require_regular(path: str) -> None:
    """Raise FileFormError for a local pipe, device or socket, whose end may never come; what is missing passes."""
    try:
        kind = _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
    except (OSError, ValueError):  # opening it tells why; ValueError: a NUL in the name
        return
    if kind is not None:
        raise FileFormError("not a regular file", got=f"{path}, {kind}", wanted="a file with content")


def read_at_most(stream: BinaryIO, max_bytes: int, source: object) -> bytes:
    """Read a stream to its end; FileTooLarge, which names `source`, where it holds more than `max_bytes`."""
    pieces, num_bytes = [], 0
    while piece := stream.read(_READ_BYTES):  # Arrow takes the memory of what it is asked for, not of what there is
        pieces.append(piece)
        num_bytes += len(piece)
        if num_bytes > max_bytes:
            raise FileTooLarge("the file is too large for its kind", got=source, wanted=f"{max_bytes} bytes at most")
    return b"".join(pieces)


def parse_json(data: bytes | str, source: object) -> Any:
    """Return what JSON text holds; FileFormError, which names `source`, for what is damaged or nested too deeply."""
    try:
        content = json.loads(data)
    except RecursionError:
        content = None
    except ValueError as error:  # of bytes, of JSON, or of a number with thousands of digits
        raise FileFormError(f"{source} is not valid JSON", got=str(error), wanted="whole JSON") from error
    else:
        if not _is_deeper(content, MAX_DEPTH):
            return content
    raise FileFormError(f"{source} is nested too deeply", wanted=f"JSON of {MAX_DEPTH} levels at most")


def _is_deeper(content: Any, max_depth: int) -> bool:
    """Whether content has more levels: what goes through it later calls itself for each."""
    level = [content] if isinstance(content, (dict, list)) else []
    for _ in range(max_depth):
        inner = (one for group in level for one in (group.values() if isinstance(group, dict) else group))
        level = [one for one in inner if isinstance(one, (dict, list))]
        if not level:
            return False
    return True


def check_form(model: type[_ModelT], content: Any, source: object) -> _ModelT:
    """Return content as `model`; FileFormError, which names `source` and the first field that is wrong."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "the whole"
        got = f"{field} = {first['input']!r:.200}"
        raise FileFormError(f"{source} is not of its form", got=got, wanted=first["msg"]) from None


def require_plain_name(name: str) -> str:
    """Return a name that is plain, for pydantic; ValueError for another."""
    if not is_plain_name(name):
        raise ValueError(f"{name[:60]!r} is no plain name of a file in the folder")
    return name


def is_plain_name(name: str) -> bool:
    """Tell whether a relative name with slashes stays in its folder and can be shown."""
    parts = name.split("/")
    return len(name) <= _MAX_NAME and printable(name) == name and not {"", ".", ".."}.intersection(parts)
