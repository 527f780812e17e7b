"""The feature of a frame: a ResNet's pooled output, of `transformers` or from a file with torchvision's names."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mama_ray.errors import UserError
from mama_ray.features.pictures import PictureInput, read_picture_input
from mama_ray.features.transformers_folder import load_strictly, read_model_type
from mama_ray.models.weight_files import State, is_flat, name_some, read_weights_file

SQUASHED = PictureInput(height=224, width=224, mode="bicubic")  # as VGT's features were made
_LAYERS = r"layer(\d)\.(\d+)"
_DROPPED = ("fc.weight", "fc.bias")  # the classes of ImageNet
_COUNTER = "num_batches_tracked"  # which files of old have not, and which is read in training alone
_FRAMES_AT_A_TIME = 8


class FrameEncoder:
    """Frames to their features, without gradient."""

    def __init__(self, model: Any, pictures: PictureInput, *, device: torch.device | str = "cpu") -> None:
        self._model, self._pictures, self._device = model.eval().to(device), pictures, device

    @property
    def decoded_side(self) -> int:
        """Shorter side of the frames that it would see whole."""
        return self._pictures.decoded_side

    @property
    def dim(self) -> int:
        """Channels of a feature; 2048 for ResNet-101."""
        return self._model.config.hidden_sizes[-1]

    @torch.no_grad()
    def __call__(self, frames: UInt8[np.ndarray, "frames height width 3"]) -> Float[np.ndarray, "frames dim"]:
        parts = []
        for start in range(0, len(frames), _FRAMES_AT_A_TIME):
            pixels = self._pictures.prepare(frames[start : start + _FRAMES_AT_A_TIME]).to(self._device)
            parts.append(self._model(pixels).pooler_output.flatten(1).float().cpu())
        return torch.cat(parts).numpy()


def load_frame_encoder(source: Path, *, device: torch.device | str = "cpu") -> FrameEncoder:
    """Load a folder of a `transformers` ResNet, whose classifier is left out, or a file in torchvision's layout.

    Pictures are squashed to 224 x 224 as for VGT's features, whatever crop a folder asks for; the constants are the
    folder's.
    UserError for what is neither, and for keys and shapes that do not fit.
    """
    if source.is_dir():
        if (model_type := read_model_type(source)) != "resnet":
            raise UserError(f"{source} is no ResNet", got=model_type, wanted="model_type resnet")
        from transformers import ResNetModel

        constants = read_picture_input(source, SQUASHED)
        pictures = PictureInput(height=224, width=224, mode="bicubic", mean=constants.mean, std=constants.std)
        return FrameEncoder(load_strictly(ResNetModel, source, beside=("classifier.",)), pictures, device=device)
    return FrameEncoder(_build_from_torchvision(read_weights_file(source), str(source)), SQUASHED, device=device)


def _build_from_torchvision(content: Any, source: str) -> Any:
    from transformers import ResNetConfig, ResNetModel

    state = from_torchvision(content, source)
    try:
        model = ResNetModel(ResNetConfig(**_sizes(content)))
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{source} does not show the sizes of a ResNet", got=str(error)) from error
    wanted = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    got = {key: tuple(tensor.shape) for key, tensor in state.items()}
    wrong = sorted(
        key for key in wanted.keys() | got.keys() if wanted.get(key) != got.get(key) and not key.endswith(_COUNTER)
    )
    if wrong:
        raise UserError(f"{source} does not fit a ResNet", got=name_some(wrong), wanted="torchvision's keys and shapes")
    model.load_state_dict(state, strict=False)
    return model


def from_torchvision(content: Any, source: str) -> State:
    """Rename the keys of a torchvision ResNet to those of `transformers`; UserError names one that it has not."""
    if not is_flat(content):
        raise UserError(f"{source} is not a flat state dict", wanted="names mapped to tensors")
    state, foreign = {}, []
    for key, tensor in content.items():
        if key in _DROPPED:
            continue
        renamed = _renamed(key)
        if renamed is None:
            foreign.append(key)
        else:
            state[renamed] = tensor.float() if tensor.is_floating_point() else tensor
    if foreign:
        raise UserError(f"{source} is not in torchvision's layout", got=name_some(sorted(foreign)))
    whole = [key for key, one in state.items() if not one.is_floating_point() and not key.endswith(_COUNTER)]
    if whole:
        raise UserError(f"{source} has whole numbers for weights", got=name_some(whole), wanted="floating-point ones")
    return state


def _renamed(key: str) -> str | None:
    if found := re.fullmatch(r"(conv|bn)1\.(\w+)", key):
        return f"embedder.embedder.{_kind(found[1])}.{found[2]}"
    if found := re.fullmatch(rf"{_LAYERS}\.(conv|bn)(\d)\.(\w+)", key):
        stage, layer, kind, number, name = found.groups()
        place = f"encoder.stages.{int(stage) - 1}.layers.{layer}.layer.{int(number) - 1}"
        return f"{place}.{_kind(kind)}.{name}"
    if found := re.fullmatch(rf"{_LAYERS}\.downsample\.([01])\.(\w+)", key):
        stage, layer, number, name = found.groups()
        kind = _kind("conv" if number == "0" else "bn")
        return f"encoder.stages.{int(stage) - 1}.layers.{layer}.shortcut.{kind}.{name}"
    return None


def _kind(short: str) -> str:
    return "convolution" if short == "conv" else "normalization"


def _sizes(content: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read a ResNetConfig's fields off the shapes."""
    blocks = {(int(m[1]), int(m[2])) for key in content if (m := re.match(_LAYERS, key))}
    stages = sorted({stage for stage, _ in blocks})
    is_bottleneck = "layer1.0.conv3.weight" in content
    last = "conv3" if is_bottleneck else "conv2"
    return {
        "embedding_size": content["conv1.weight"].shape[0],
        "hidden_sizes": [content[f"layer{stage}.0.{last}.weight"].shape[0] for stage in stages],
        "depths": [sum(block[0] == stage for block in blocks) for stage in stages],
        "layer_type": "bottleneck" if is_bottleneck else "basic",
    }
