"""Where a model is: a local folder, a folder of any storage, or a repository of the hub."""

import os
from collections.abc import Sequence
from pathlib import Path

from mama_ray.errors import UserError
from mama_ray.models.hub import local_model, require_hub_id, without_prefix

model_folder = local_model


def look_at_model(source: str | None, *, holds: Sequence[str] = ("config.json",)) -> None:
    """Raise UserError, before anything starts, for a source that can be no model's.

    A local folder is looked into for one of the files that make it one (`holds`); a URI and a hub id are not followed.
    """
    if source is None or "://" in source:
        return
    source = without_prefix(source)
    path = Path(os.path.expanduser(source))
    if not os.path.exists(path):  # unlike Path's, it does not raise for what can be no path
        require_hub_id(source)
    elif path.is_dir() and not any((path / name).is_file() for name in holds):
        wanted = f"a folder with {' or '.join(holds)}, or a hub id"
        remedy = None
        if checkpoints := sorted(path.glob("checkpoints/step_*")):
            remedy = f"of this run name one checkpoint, as {checkpoints[-1]}"
        raise UserError("not the folder of a model", got=source, wanted=wanted, remedy=remedy)
