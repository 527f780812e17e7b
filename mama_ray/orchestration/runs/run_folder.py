"""The folder of a run: its config before any work, and the environment it ran in."""

import json
import platform
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path

import ray
import ray.train

from mama_ray.config import Config, config_to_yaml, load_yaml, names_that_may_change
from mama_ray.config.masking import mask_secrets
from mama_ray.errors import UserError
from mama_ray.storage.places import Place
from mama_ray.training.manifest import list_checkpoints


def write_run_config(job: Config, run_folder: Place) -> None:
    """Write config.yaml before any work; a run that has a checkpoint must be started again with what made it."""
    place = run_folder / "config.yaml"
    text = config_to_yaml(job)
    if place.is_file() and list_checkpoints(run_folder):
        earlier = load_yaml(place.read_text(), source=place.uri)
        ours = load_yaml(text, source="this start")
        may_change = names_that_may_change(type(job))
        changed = [key for key in ours if key not in may_change and earlier.get(key) != ours[key]]
        if changed:
            raise UserError(
                f"run {run_folder.name} exists with another config",
                got=", ".join(f"{key} = {ours[key]}" for key in changed),
                wanted=", ".join(f"{key} = {earlier.get(key)}" for key in changed),
                remedy="start it with its own config to resume, or give --run another name",
            )
    place.write_whole(text)


def write_environment(summary: dict, run_folder: Place) -> None:
    """Write environment.json: the command, versions, the cluster, and what is known of the data."""
    packages = ("mama-ray", "ray", "torch", "transformers", "decord", "pyarrow", "numpy")
    environment = {
        "command": mask_secrets(shlex.join([Path(sys.executable).name, *sys.argv])),
        "started_s": round(time.time(), 3),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in packages},
        "cluster": ray.cluster_resources(),
        "data": summary,
    }
    (run_folder / "environment.json").write_whole(json.dumps(environment, indent=1, default=str))
