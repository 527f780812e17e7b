"""The folder of a run: its config before any work, the environment it ran in, and what it began with.

A run that has a checkpoint goes on with what it began with. Where shards, tables, tokenizer and weights lie may change
between two starts; what they hold may not, and environment.json has its hashes.
"""

import json
import platform
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import ray
import ray.train

from mama_ray.config import (
    Config,
    ConfigError,
    config_to_yaml,
    load_yaml,
    names_of_locations,
    names_that_may_change,
)
from mama_ray.config.fields import set_path
from mama_ray.config.schema import build_config
from mama_ray.errors import UserError
from mama_ray.masking import mask_command, mask_secrets
from mama_ray.orchestration.runs.settings import count_steps
from mama_ray.reporting.provenance import read_environment
from mama_ray.storage.places import Place
from mama_ray.storage.small_files import MAX_SETTINGS_BYTES
from mama_ray.training.manifest import latest_valid_checkpoint, list_checkpoints
from mama_ray.training.optim import schedules_agree

_OF_A_SWEEP = ("study.db", "trials")


@dataclass(frozen=True)
class BegunRun:
    """A run that has a checkpoint.

    Attributes:
        moved: dotted names of the places that are given otherwise than at its last start.
        contents: hashes of what it began with, by dotted name; a run of an older version lacks some.
        changed: names of what may change and is given otherwise than at its last start.
    """

    moved: frozenset[str]
    contents: Mapping[str, Any]
    changed: frozenset[str] = frozenset()

    def refuse_others(self, run: str, contents: Mapping[str, Any], places: Mapping[str, Any]) -> None:
        """Raise UserError where `contents` are others than the run began with; `places` says where they were found."""
        for name, found in contents.items():
            if name not in self.contents and name in self.moved:
                raise UserError(
                    f"run {run} exists with another {name}, and noted no hash by which this one could be known",
                    got=places[name],
                    remedy="give the place it began with, which may be a link, or give --run another name",
                )
            if name in self.contents and self.contents[name] != found:
                raise UserError(
                    f"run {run} began with other contents of {name}",
                    got=f"{places[name]} with sha256 {found}",
                    wanted=f"sha256 {self.contents[name]}",
                    remedy="put back what it began with to resume, or give --run another name",
                )


def compare_with_begun(job: Config, run_folder: Place) -> BegunRun | None:
    """Return what is known of a run that has a checkpoint, None for a new one.

    Raises UserError where the job differs from the run's in anything that decides what is learned: only places may be
    given otherwise, and num_epochs where the schedule does not depend on it; and for the folder of a sweep.
    """
    if any((run_folder / name).exists() for name in _OF_A_SWEEP):
        remedy = "give --run another name"
        raise UserError("the folder of the run is that of a sweep", got=run_folder, remedy=remedy)
    place = run_folder / "config.yaml"
    if not (place.is_file() and list_checkpoints(run_folder)):
        return None
    ours, theirs = _plain(job), _earlier(type(job), load_yaml(place.read_text(MAX_SETTINGS_BYTES), source=place.uri))
    data = read_environment(run_folder).get("data", {})
    moved = frozenset(name for name in names_of_locations(type(job)) if _at(theirs, name) != _at(ours, name))
    for name, values in product(moved, (ours, theirs)):
        set_path(values, name, None)
    may_change = names_that_may_change(type(job))
    changed = [name for name in ours if name not in may_change and theirs.get(name) != ours[name]]
    if changed == ["num_epochs"]:
        _refuse_other_length(job, theirs["num_epochs"], run_folder, data)
    elif changed:
        raise UserError(
            f"run {run_folder.name} exists with another config",
            got=", ".join(f"{name} = {ours[name]}" for name in changed),
            wanted=", ".join(f"{name} = {theirs.get(name)}" for name in changed),
            remedy="start it with its own config to resume, or give --run another name",
        )
    return BegunRun(
        moved, _contents(data), frozenset(name for name in may_change if theirs.get(name) != ours.get(name))
    )


def _refuse_other_length(job: Any, earlier: float, run_folder: Place, data: Mapping[str, Any]) -> None:
    """Raise UserError unless the steps that are done would be the same in a run of the job's length."""
    newest = latest_valid_checkpoint(run_folder)
    assert newest is not None  # there is a checkpoint
    record = (newest.place / "train_state.json").read_json() or {}
    num_clips = data.get("questions", {}).get("num_places") or data.get("num_clips", {}).get("train")
    weighting = getattr(job, "weighting", None)
    follows_the_share_done = weighting is not None and weighting.kind == "self_paced"
    if record and num_clips and not follows_the_share_done:
        lengths = record["num_steps"], count_steps(job, num_clips)
        if schedules_agree(record["step"], *lengths, job.optim):
            return
    raise UserError(
        f"run {run_folder.name} cannot change its length, by which its schedule goes",
        got=f"num_epochs = {job.num_epochs:g}",
        wanted=f"num_epochs = {earlier:g}, or a run that began with optim.final_lr_share 1 and optim.warmup_share 0",
        remedy=f"to learn on from its weights, start another run with --model.pretrained {newest.place}",
    )


def _plain(job: Config) -> dict[str, Any]:
    """Return a config's values as config.yaml holds them."""
    return load_yaml(config_to_yaml(job), source="this start")


def _earlier(config_class: type[Config], values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of an earlier config.yaml, with the defaults of fields that were added since."""
    try:
        return _plain(build_config(config_class, values))
    except ConfigError:
        return values


def _at(values: Any, path: str) -> Any:
    for name in path.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def _contents(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hashes that environment.json has; those of tables stood apart before."""
    tables = {"data.caption_tables": [use["sha256"] for use in data.get("caption_tables", {}).values()]}
    return (tables if "caption_tables" in data else {}) | data.get("contents", {})


def write_run_config(job: Config, run_folder: Place) -> None:
    """Write config.yaml."""
    (run_folder / "config.yaml").write_whole(config_to_yaml(job))


def write_environment(summary: dict, run_folder: Place) -> None:
    """Write environment.json: the command, versions, the cluster, and what is known of the data."""
    packages = ("mama-ray", "ray", "torch", "transformers", "decord", "pyarrow", "numpy")
    environment = {
        "command": shlex.join(mask_command([Path(sys.executable).name, *sys.argv])),
        "started_s": round(time.time(), 3),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in packages},
        "cluster": ray.cluster_resources(),
        "data": mask_secrets(summary),
    }
    (run_folder / "environment.json").write_whole(json.dumps(environment, indent=1, default=str))
