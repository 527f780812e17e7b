"""What vLLM 0.29 needs to show Qwen3-VL videos beside newer transformers.

vLLM processes a video apart from its prompt, and the prompt, which still names the video, once more without it.
transformers 5.17 refuses a text that names a video where none is given. So the processor's check is skipped for a call
that brings neither pictures nor videos; the tokens of the two together are those of transformers, as a test compares.
"""

from functools import wraps
from pathlib import Path
from typing import Any

from mama_ray.models.weight_files import read_json

_QWEN3_VL = "qwen3_vl"


def overrides_of(model: Path) -> dict[str, Any]:
    """Return what vLLM must be told of the config of a Qwen3-VL; nothing of another model.

    On a CPU, vLLM asks the text part, which names no architecture, for the first of its architectures.
    """
    if not _is_qwen3(model):
        return {}
    return {"hf_overrides": {"text_config": {"architectures": ["Qwen3ForCausalLM"]}}}


def accept_names_of_videos(model: Path) -> None:
    """Make the processor of Qwen3-VL, in this process, take a text that names a video without one.

    Does nothing for another model; call it before an engine that is shown videos is built.
    """
    if not _is_qwen3(model):
        return
    from transformers import Qwen3VLProcessor

    check = Qwen3VLProcessor.validate_inputs
    if hasattr(check, "__wrapped__"):  # as it is when this was called before
        return

    @wraps(check)
    def check_media(self: Any, images: Any = None, text: Any = None, videos: Any = None, **further: Any) -> None:
        if images is not None or videos is not None:
            check(self, images=images, text=text, videos=videos, **further)

    setattr(Qwen3VLProcessor, "validate_inputs", check_media)  # noqa: B010 - a type checker forbids the plain form


def _is_qwen3(model: Path) -> bool:
    return read_json(model / "config.json").get("model_type") == _QWEN3_VL
