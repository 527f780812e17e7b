"""Tiny ResNets and detectors in folders, as users have them: real architectures of transformers, random weights."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def save_resnet(folder: Path) -> Any:
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    model = ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[16, 24], depths=[1, 2]))
    model.save_pretrained(folder)
    return model.eval()


def save_detector(folder: Path, kind: str = "detr", *, num_queries: int = 12) -> Any:
    from transformers import (
        DetrConfig,
        DetrForObjectDetection,
        ResNetConfig,
        RTDetrConfig,
        RTDetrForObjectDetection,
        RTDetrResNetConfig,
    )

    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(embedding_size=8, hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1])
    if kind == "detr":
        places: dict[str, Any] = {"out_features": ["stage4"]}
        backbone = ResNetConfig(**sizes, **places)
        small: dict[str, Any] = dict(d_model=16, encoder_layers=1, decoder_layers=1, num_queries=num_queries)
        small |= dict(encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16)
        model = DetrForObjectDetection(DetrConfig(backbone_config=backbone, **small))
    else:
        places = {"out_features": ["stage2", "stage3", "stage4"]}
        backbone = RTDetrResNetConfig(**sizes, **places, layer_type="basic", downsample_in_first_stage=False)
        small = dict(d_model=16, encoder_hidden_dim=16, encoder_in_channels=[12, 16, 24], num_queries=num_queries)
        small |= dict(encoder_ffn_dim=16, decoder_ffn_dim=16, decoder_layers=1, decoder_attention_heads=2)
        small |= dict(decoder_in_channels=[16, 16, 16], encoder_attention_heads=2, num_denoising=0)
        model = RTDetrForObjectDetection(RTDetrConfig(backbone_config=backbone, **small))
    model.save_pretrained(folder)
    return model.eval()


def torchvision_state(*, depths: tuple[int, ...] = (1, 2), width: int = 8) -> dict[str, Tensor]:
    """A random state dict with torchvision's names for a bottleneck ResNet."""
    state: dict[str, Tensor] = {}

    def conv(name: str, out: int, into: int, size: int) -> None:
        state[f"{name}.weight"] = torch.randn(out, into, size, size) / (into * size * size) ** 0.5

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean"):
            state[f"{name}.{part}"] = torch.randn(channels) * 0.3
        state[f"{name}.running_var"] = torch.rand(channels) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    conv("conv1", width, 3, 7)
    norm("bn1", width)
    into = width
    for stage, depth in enumerate(depths, 1):
        inner, out = width * 2 ** (stage - 1), 4 * width * 2 ** (stage - 1)
        for block in range(depth):
            place = f"layer{stage}.{block}"
            for number, sizes in enumerate(((inner, into, 1), (inner, inner, 3), (out, inner, 1)), 1):
                conv(f"{place}.conv{number}", *sizes)
                norm(f"{place}.bn{number}", sizes[0])
            if block == 0:
                conv(f"{place}.downsample.0", out, into, 1)
                norm(f"{place}.downsample.1", out)
            into = out
    state["fc.weight"], state["fc.bias"] = torch.randn(10, into), torch.randn(10)
    return state


def torchvision_forward(state: dict[str, Tensor], pixels: Tensor, *, depths: tuple[int, ...] = (1, 2)) -> Tensor:
    """What torchvision's ResNet (v1.5: the stride in the 3 x 3) computes before its classifier, by its own names."""

    def norm(x: Tensor, name: str) -> Tensor:
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts, eps=1e-5)

    def conv(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], stride=stride, padding=padding)

    x = F.max_pool2d(norm(conv(pixels, "conv1", 2, 3), "bn1").relu(), 3, stride=2, padding=1)
    for stage, depth in enumerate(depths, 1):
        for block in range(depth):
            place, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = norm(conv(x, f"{place}.conv1"), f"{place}.bn1").relu()
            y = norm(conv(y, f"{place}.conv2", stride, 1), f"{place}.bn2").relu()
            y = norm(conv(y, f"{place}.conv3"), f"{place}.bn3")
            if block == 0:
                x = norm(conv(x, f"{place}.downsample.0", stride), f"{place}.downsample.1")
            x = (x + y).relu()
    return x.mean(dim=(2, 3))
