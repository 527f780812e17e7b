"""Where a run's numbers come from: what its folder says of its command, its settings, its versions and its dates."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from mama_ray.config import load_yaml
from mama_ray.masking import mask_secrets, mask_text
from mama_ray.storage.places import Place
from mama_ray.storage.small_files import MAX_SETTINGS_BYTES, check_form

_VERSIONS = ("mama-ray", "torch", "ray", "transformers")


class _Uses(BaseModel):
    sha256: str


class _Data(BaseModel):
    num_clips: dict[str, int] = {}
    caption_tables: dict[str, _Uses] = {}
    contents: dict[str, Any] = {}


class _Environment(BaseModel):
    """The form of environment.json, as far as it is read again."""

    command: str | None = None
    started_s: float | None = None
    packages: dict[str, str] = {}
    cluster: dict[str, float] = {}
    data: _Data = _Data()


def read_provenance(run_folder: Place, records: Sequence[Mapping], checkpoint: str | None = None) -> dict[str, str]:
    """Return what can be told of a run by name: command, checkpoint, dates, clips, versions, machine.

    checkpoint: that whose results stand beside, if there are any. Runs of earlier versions tell less.
    """
    found = read_environment(run_folder)
    packages, counts = found.get("packages", {}), found.get("data", {}).get("num_clips", {})
    cluster = found.get("cluster", {})
    machines = [f"{cluster[name]:g} {name}" for name in ("CPU", "GPU") if cluster.get(name)]
    times = [record["time_s"] for record in records if record.get("time_s")]
    told = {
        "command": found.get("command"),
        "checkpoint": checkpoint,
        "started": _date(found.get("started_s", times[0] if times else None)),
        "last record": _date(times[-1] if times else None),
        "clips": ", ".join(f"{count:,} {split}" for split, count in counts.items()),
        "versions": ", ".join(f"{name} {packages[name]}" for name in _VERSIONS if name in packages),
        "python": " on ".join(str(found[name]) for name in ("python", "platform") if name in found),
        "Ray's resources": ", ".join(machines),
    }
    return {name: mask_text(str(value)) for name, value in told.items() if value}


def read_environment(run_folder: Place) -> dict[str, Any]:
    """Return environment.json, {} where there is none; UserError where it is of another form."""
    place = run_folder / "environment.json"
    found = place.read_json() or {}
    check_form(_Environment, found, place)
    return found


def read_settings(run_folder: Place) -> dict[str, str]:
    """Return all settings of a run by dotted key, as its config.yaml has them; {} where it has none."""
    place = run_folder / "config.yaml"
    if not place.is_file():
        return {}
    return dict(_flat(mask_secrets(load_yaml(place.read_text(MAX_SETTINGS_BYTES), source=place.uri))))


def read_num_val(run_folder: Place) -> int | None:
    """Return the number of clips that the run validates on, None where it is not told."""
    found = read_environment(run_folder)
    return found.get("data", {}).get("num_clips", {}).get("val")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "–" if value is None or value in ({}, []) else str(value)


def _date(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError, TypeError):  # no time that a calendar has
        return None
