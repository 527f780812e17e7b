"""The meta step on a GPU gives what it gives on a CPU, in float64 exactly, and under bf16 as nearly as bf16 can."""

import copy

import pytest
import torch

from mama_ray.data.batch import ClipBatch
from mama_ray.models.clip_vip.model import ClipVip, ClipVipConfig
from mama_ray.models.transformer import EncoderConfig
from mama_ray.weighting.settings import InnerStepConfig
from tests.weighting.toys import NUM_TOKENS, VOCABULARY, build_step, random_batch, random_weight_net

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]
DEVICE = "cuda"


def small_clip(width: int = 32) -> ClipVip:
    tower = EncoderConfig(width=width, num_layers=3, num_heads=2)
    shapes = {"image_size": 2, "patch_size": 1, "num_frames": 2, "vocab_size": VOCABULARY, "context_length": NUM_TOKENS}
    torch.manual_seed(0)
    model = ClipVip(ClipVipConfig(video=tower, text=tower, dim=16, place_init_std=0.3, **shapes))
    model.logit_scale.data.fill_(2.0)
    return model


def gradients(
    model: ClipVip, device: str, *, dtype: torch.dtype, has_bf16: bool = False, **meta
) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's gradient and phi's, of one meta step."""
    torch.manual_seed(0)
    net = random_weight_net().to(device, dtype)
    step = build_step(copy.deepcopy(model).to(device, dtype), net, **meta)
    step.autocast = lambda: torch.autocast(device, torch.bfloat16, enabled=has_bf16)
    batch, meta_batch = (part.to(device) for part in (random_batch(1, 16), random_batch(2, 8)))
    step.compute_gradients(batch, meta_batch)
    found = ([value.grad for value in step.parameters.values()], [value.grad for value in net.parameters()])
    return tuple(torch.cat([gradient.flatten() for gradient in part]).double().cpu() for part in found)


def error(ours: torch.Tensor, reference: torch.Tensor) -> float:
    return float((ours - reference).norm() / reference.norm())


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
@pytest.mark.parametrize("method", ["forward_mode", "second_order"])
def test_a_meta_step_in_float64_has_the_gradients_that_it_has_on_the_cpu(method, arrangement):
    options = {"dtype": torch.float64, "arrangement": arrangement, "hypergradient": method}
    on_cpu, on_gpu = (gradients(small_clip(), device, **options) for device in ("cpu", DEVICE))
    for ours, reference in zip(on_gpu, on_cpu, strict=True):
        assert error(ours, reference) < 1e-9


@pytest.mark.parametrize(
    "options",
    [{"tangent_share": 0.5}, {"tangent_share": 0.25}, {"inner": InnerStepConfig(lr=0.1, parameters=("*.layers.1",))}],
)
def test_estimates_and_restricted_lookaheads_in_float64_are_those_of_the_cpu(options):
    """Clips are drawn alike everywhere."""
    on_cpu, on_gpu = (gradients(small_clip(), device, dtype=torch.float64, **options) for device in ("cpu", DEVICE))
    for ours, reference in zip(on_gpu, on_cpu, strict=True):
        assert error(ours, reference) < 1e-9


@pytest.mark.parametrize(("method", "bound"), [("forward_mode", 1e-3), ("finite_difference", 5e-2)])
def test_the_hypergradient_in_float32_is_near_the_second_order_one_in_float64(method, bound):
    _, reference = gradients(small_clip(), DEVICE, dtype=torch.float64, hypergradient="second_order")
    _, ours = gradients(small_clip(), DEVICE, dtype=torch.float32, hypergradient=method)
    assert error(ours, reference) < bound


def test_the_hypergradient_under_bf16_autocast_of_a_trained_model_is_near_the_one_in_float64():
    model = small_clip(width=64).to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batch: ClipBatch = random_batch(1, 16).to(DEVICE)
    for _ in range(100):  # features of a fresh model nearly coincide, so that bf16 leaves little of their differences
        build_step(model, random_weight_net().float().to(DEVICE)).compute_gradients(batch)
        optimizer.step()
    _, reference = gradients(model, DEVICE, dtype=torch.float64, hypergradient="second_order")
    _, ours = gradients(model, DEVICE, dtype=torch.float32, has_bf16=True, hypergradient="forward_mode")
    assert 1e-5 < error(ours, reference) < 0.1  # the lower bound: not float32 by mistake
