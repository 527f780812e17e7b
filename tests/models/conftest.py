"""A dual encoder of a few thousand float64 parameters, none of them at a value that hides an error."""

import pytest
import torch

from mama_ray.models.clip_vip.model import ClipVip, ClipVipConfig
from mama_ray.models.transformer import EncoderConfig

END_OF_TEXT = 39


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_config() -> ClipVipConfig:
    return ClipVipConfig(
        video=EncoderConfig(width=24, num_layers=2, num_heads=3),
        text=EncoderConfig(width=16, num_layers=2, num_heads=2),
        dim=12,
        image_size=16,
        patch_size=8,
        num_frames=3,
        num_proxies=3,
        vocab_size=END_OF_TEXT + 1,
        context_length=10,
    )


@pytest.fixture
def build_model():
    """Build a float64 model whose zeros and ones (biases, norms, temporal embedding) are moved off their start."""

    def build(config: ClipVipConfig, seed: int = 0) -> ClipVip:
        torch.manual_seed(seed)
        model = ClipVip(config).double()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name != "logit_scale":
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    return build


@pytest.fixture
def model(small_config, build_model) -> ClipVip:
    return build_model(small_config)


@pytest.fixture
def frames(small_config) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (4, 3, 16, 16, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture
def token_ids() -> torch.Tensor:
    """Four texts of 3, 5, 7 and 10 tokens, padded with end-of-text."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, END_OF_TEXT, (4, 10), generator=generator)
    for row, length in enumerate((3, 5, 7, 10)):
        ids[row, length - 1 :] = END_OF_TEXT
    return ids
