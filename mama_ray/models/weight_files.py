"""Read and write state dicts on local disk without ever unpickling an object.

A directory holds `model.safetensors`, or shards named by `model.safetensors.index.json`. Every damaged or absent file
is one UserError that names it.
"""

import hashlib
import json
import pickle
import re
import struct
from argparse import Namespace
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from mama_ray.errors import UserError
from mama_ray.storage.places import Place, whole_file
from mama_ray.storage.small_files import MAX_JSON_BYTES, is_plain_name, parse_json

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
HEAD_WEIGHTS = "head.safetensors"
TORCH_NAME = "pytorch_model.bin"  # what older repositories of the hub hold, OpenAI's CLIP among them

State = dict[str, Tensor]
_HASHED_BYTES = 1 << 20
# How torch.load names what it refuses to make: "Unsupported global: GLOBAL os.system was not an allowed global", or a
# class of the allowlist's kind that is "Unsupported class".
_REFUSED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_CHECKED_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# What a damaged pickle raises, whose instructions call the loader's own functions with other types.
_DAMAGED_PICKLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, OSError,
    AssertionError, OverflowError, MemoryError, struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class LoadReport:
    """What a load did with every key; `missing`, `unexpected` and `mismatched` are empty once loading has succeeded."""

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    """As "key: got shape, wanted shape", or the kinds of numbers, or that they are not finite."""
    fresh: tuple[str, ...] = ()
    """Absent from the file by its layout; left as initialised."""
    dropped: tuple[str, ...] = ()
    """Buffers of older files that carry no weights."""
    interpolated: tuple[str, ...] = ()
    """Resampled, on request, to another image size or frame count."""

    def raise_if_incomplete(self, source: str) -> None:
        """Raise a UserError that names the keys unless every key found its place."""
        faults = {"missing": self.missing, "unexpected": self.unexpected, "of another form": self.mismatched}
        text = "; ".join(f"{kind}: {name_some(list(names))}" for kind, names in faults.items() if names)
        if text:
            raise UserError(
                f"weights of {source} do not fit the model ({text})",
                wanted="exactly the model's keys and shapes",
                remedy="load with the config the weights were made for; interpolate=True resamples position and"
                " temporal embeddings",
            )


def compare_states(
    wanted: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    *,
    may_be_fresh: Collection[str] = (),
    dropped: Sequence[str] = (),
    interpolated: Sequence[str] = (),
) -> LoadReport:
    """Compare a file's tensors with a model's by name, shape and kind: whole numbers are no weights, whatever a copy
    would make of them (quantised files have such), nor is NaN. `may_be_fresh` are names that the file may lack.
    """
    absent, common = sorted(wanted.keys() - state.keys()), sorted(wanted.keys() & state.keys())
    differences = {name: _difference(state[name], wanted[name]) for name in common}
    return LoadReport(
        missing=tuple(name for name in absent if name not in may_be_fresh),
        unexpected=tuple(sorted(state.keys() - wanted.keys())),
        mismatched=tuple(f"{name}: {difference}" for name, difference in differences.items() if difference),
        fresh=tuple(name for name in absent if name in may_be_fresh),
        dropped=tuple(dropped),
        interpolated=tuple(interpolated),
    )


def _difference(found: Tensor, wanted: Tensor) -> str:
    if found.shape != wanted.shape:
        return f"got {tuple(found.shape)}, wanted {tuple(wanted.shape)}"
    if found.layout is not torch.strided:
        return f"got {found.layout}, wanted a dense tensor"
    if wanted.is_floating_point() and not found.is_floating_point():
        return f"got {found.dtype}, wanted floating-point numbers"
    if not is_finite(found):
        return "got NaN or infinity, wanted finite numbers"
    return ""


def is_finite(tensor: Tensor) -> bool:
    """Tell whether a tensor holds neither NaN nor infinity; one that has a shape alone, or whole numbers, has none."""
    if tensor.is_meta or tensor.dtype not in _CHECKED_DTYPES or not tensor.numel():
        return True
    return all(end.isfinite().item() for end in tensor.aminmax())  # which takes no memory, and passes NaN on


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; UserError when it is absent, damaged or no object."""
    if not path.is_file():
        raise UserError("model file is missing", got=str(path), wanted="a JSON file")
    content = parse_json(Place.of(path).read_bytes(MAX_JSON_BYTES), path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object", got=type(content).__name__, wanted="an object")
    return content


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write a JSON file whole."""
    Place.of(path).write_whole(json.dumps(content, indent=2) + "\n")


def read_state(directory: Path, *, values_of: Collection[str] | None = None) -> State:
    """Read all tensors of a model directory, sharded or not; with `values_of`, all but these come as shapes."""
    if (directory / WEIGHTS_NAME).is_file():
        return read_safetensors(directory / WEIGHTS_NAME, values_of=values_of)
    if not (directory / INDEX_NAME).is_file():
        return _read_torch_state(directory, values_of)
    weight_map = _read_weight_map(directory)
    state: State = {}
    for name in sorted(set(weight_map.values())):
        part = read_safetensors(directory / name, values_of=values_of)
        if doubled := sorted(part.keys() & state.keys()):
            raise UserError("shards hold a tensor twice", got=name_some(doubled), wanted="each tensor in one shard")
        state |= part
    absent = sorted(set(weight_map) - set(state))
    if absent:
        raise UserError("shards lack tensors of their index", got=name_some(absent), wanted="every tensor of the index")
    return state


def safetensors_of(directory: Path) -> list[str]:
    """Return the names of the files of a model directory's weights; empty where these are no safetensors."""
    if (directory / WEIGHTS_NAME).is_file():
        return [WEIGHTS_NAME]
    if not (directory / INDEX_NAME).is_file():
        return []
    return [INDEX_NAME, *sorted(set(_read_weight_map(directory).values()))]


def _read_weight_map(directory: Path) -> dict[str, str]:
    weight_map = read_json(directory / INDEX_NAME).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) and name for name in weight_map.values()):
        raise UserError(f"{directory / INDEX_NAME} is not a shard index", wanted="an object `weight_map`")
    for name in weight_map.values():
        if not is_plain_name(name) or "/" in name:
            raise UserError("shard index leads out of the model directory", got=name, wanted="a plain file name")
    return weight_map


def _read_torch_state(directory: Path, values_of: Collection[str] | None) -> State:
    """Read pytorch_model.bin where there is nothing better, as tensors only."""
    path = directory / TORCH_NAME
    if not path.is_file():
        raise UserError(
            "model directory holds no weights",
            got=str(directory),
            wanted=f"{WEIGHTS_NAME}, {INDEX_NAME} or {TORCH_NAME}",
        )
    state = read_torch_file(path)
    if not is_flat(state):
        raise UserError(f"{path} is no state dict", got=type(state).__name__, wanted="tensors by name")
    keep = state if values_of is None else values_of
    return {name: tensor if name in keep else tensor.to("meta") for name, tensor in state.items()}


def read_safetensors(path: Path, *, values_of: Collection[str] | None = None) -> State:
    """Read one safetensors file; UserError when it is absent, truncated or damaged.

    With `values_of`, tensors of other names are not read and come as tensors of the meta device: a shape, no content.
    """
    if not path.is_file():
        raise UserError("weights file is missing", got=str(path), wanted="a safetensors file")
    try:
        if values_of is None:
            return load_file(path)
        with safe_open(path, "pt") as file:
            return {
                name: file.get_tensor(name) if name in values_of else _outline(file.get_slice(name))
                for name in file.keys()  # noqa: SIM118 - the file is no mapping
            }
    except SafetensorError as error:
        raise UserError(
            f"{path} is damaged",
            got=f"{path.stat().st_size} bytes ({error})",
            wanted="a whole safetensors file",
            remedy="copy or download it again",
        ) from error


def _outline(stored: Any) -> Tensor:
    """Return a stored tensor's shape, and whether it has floating-point numbers."""
    dtype = torch.float32 if stored.get_dtype().startswith(("F", "BF")) else torch.int64
    return torch.empty(stored.get_shape(), dtype=dtype, device="meta")


def is_flat(content: Any) -> bool:
    """Tell whether a file's content is tensors by name, and at least one: torch.save keeps any keys."""
    named = isinstance(content, Mapping) and bool(content)
    return named and all(isinstance(key, str) and isinstance(one, Tensor) for key, one in content.items())


def read_weights_file(path: Path) -> Any:
    """Read a file of weights, safetensors or torch.save's by its suffix; the latter may hold the arguments of its
    training beside the tensors (LaViLa's), an argparse.Namespace of plain values."""
    return read_torch_file(path, allowed=(Namespace,)) if path.suffix in TORCH_SUFFIXES else read_safetensors(path)


def read_torch_file(path: Path, *, allowed: Sequence[type] = ()) -> Any:
    """Read a .pt file with the tensors-only unpickler; UserError when it is damaged or holds anything else than
    tensors, plain values and objects of the `allowed` classes, which it names."""
    try:
        with torch.serialization.safe_globals(list(allowed)):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED_PICKLE as error:
        refused = _REFUSED_GLOBAL.search(str(error))
        raise UserError(
            f"{path} cannot be read as tensors only",
            got=f"an object of {refused[1]}" if refused else (str(error).splitlines() or [type(error).__name__])[0],
            wanted="a state dict saved by torch.save",
            remedy="convert it to safetensors where you trust its source",
        ) from error
    if empty := _names_without_values(content):
        raise UserError(
            f"{path} has tensors without values", got=f"{name_some(empty)} on device meta", wanted="a model's weights"
        )
    return content


def _names_without_values(content: Any) -> list[str]:
    """Return the names of the tensors of the meta device, which have a shape alone, also of mappings in mappings."""
    found, ahead, seen = [], [("the tensor", content)], set()
    while ahead:
        name, one = ahead.pop()
        if isinstance(one, Tensor) and one.is_meta:
            found.append(name)
        elif isinstance(one, Mapping) and id(one) not in seen:
            seen.add(id(one))
            ahead += [(str(key), value) for key, value in one.items()]
    return sorted(set(found))


def write_safetensors(state: State, path: Path) -> None:
    """Write a file of tensors whole; its bytes depend on the tensors alone."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with whole_file(path) as temporary:
        save_file(contiguous, temporary, metadata={"format": "pt"})


def name_some(names: list[str], limit: int = 8) -> str:
    """Join names for a message, cut after `limit`."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def hash_weights(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's model.safetensors, or of all its weight files, by name.

    A head that answers questions is part of what a result was measured with: its file follows the model's.
    """
    whole = path / WEIGHTS_NAME if path.is_dir() else path
    digest = hashlib.sha256()
    if whole.is_file():
        parts = [whole, *([head] if (head := path / HEAD_WEIGHTS).is_file() else [])]
    else:
        parts = sorted(path.glob("*.safetensors")) or [path / TORCH_NAME]
    for part in parts:
        with part.open("rb") as file:
            while chunk := file.read(_HASHED_BYTES):
                digest.update(chunk)
    return digest.hexdigest()
