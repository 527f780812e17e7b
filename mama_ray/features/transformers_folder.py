"""Folders of `transformers` models, loaded strictly: data alone, and no weight left as it was drawn."""

from pathlib import Path
from typing import Any

from mama_ray.errors import UserError
from mama_ray.models.weight_files import name_some, read_json


def read_model_type(directory: Path) -> str:
    """Return what a folder's config.json says it is. UserError for one that wants code of its own to be run."""
    content = read_json(directory / "config.json")
    if "auto_map" in content:
        raise UserError(
            f"{directory} wants code of its own to be run",
            got="auto_map in its config.json",
            remedy="take a model that transformers itself has",
        )
    return str(content.get("model_type"))


def load_strictly(model_class: Any, directory: Path, *, beside: tuple[str, ...] = ()) -> Any:
    """Load a folder; keys that begin with one of `beside` are left out, any other that does not fit is a UserError."""
    from transformers.utils import logging as transformers_logging

    # It tells in a table what is told below in a line, or left out knowingly.
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        model, report = model_class.from_pretrained(directory, local_files_only=True, output_loading_info=True)
    except ImportError as error:
        raise UserError(
            f"{directory} needs a package that is not installed",
            got=str(error).strip().splitlines()[0],
            remedy="take the folder's revision without timm (no_timm), whose backbone is transformers' own",
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{directory} cannot be loaded", got=str(error), wanted=model_class.__name__) from error
    unexpected = [key for key in report["unexpected_keys"] if not key.startswith(beside)]
    mismatched = [str(entry[0]) for entry in report["mismatched_keys"]]
    faults = {"missing": list(report["missing_keys"]), "unexpected": unexpected, "of another shape": mismatched}
    text = "; ".join(f"{kind}: {name_some(sorted(names))}" for kind, names in faults.items() if names)
    if text:
        raise UserError(f"weights of {directory} do not fit {model_class.__name__} ({text})")
    return model
