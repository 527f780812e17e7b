"""Features on a GPU are those of a CPU, whatever kernel computes the attention; copies lie in pinned memory."""

import copy

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from mama_ray.models.attention import attend_heads
from mama_ray.models.clip_vip.model import ClipVip
from mama_ray.models.host_copy import Buffers, copy_to_host
from mama_ray.models.pretrained import preset

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]
DEVICE = "cuda"
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH]


def build_tiny() -> ClipVip:
    torch.manual_seed(0)
    return ClipVip(preset("tiny"))


def random_inputs(model: ClipVip) -> tuple[torch.Tensor, torch.Tensor]:
    config, generator = model.config, torch.Generator().manual_seed(1)
    shape = (6, config.num_frames, config.image_size, config.image_size, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    token_ids = torch.randint(1, config.vocab_size - 1, (6, config.context_length), generator=generator)
    token_ids[:, -1] = config.vocab_size - 1
    return frames, token_ids


def features(model: ClipVip, device: str, dtype: torch.dtype = torch.float32, *, has_bf16: bool = False):
    inputs = (value.to(device) for value in random_inputs(model))
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=has_bf16):
        return torch.cat(copy.deepcopy(model).to(device, dtype)(*inputs)).double().cpu()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
def test_features_are_those_of_the_cpu_in_float64(dtype, bound):
    reference = features(build_tiny(), "cpu", torch.float64)
    assert (features(build_tiny(), DEVICE, dtype) - reference).norm() < bound * reference.norm()


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_every_attention_kernel_gives_the_features_under_bf16_autocast(kernel):
    reference = features(build_tiny(), "cpu", torch.float64)
    with sdpa_kernel(
        [kernel, SDPBackend.MATH], set_priority=True
    ):  # some kernels take no mask, which the last text layer has
        ours = features(build_tiny(), DEVICE, has_bf16=True)
    assert (ours - reference).norm() < 3e-2 * reference.norm()
    assert (ours.norm(dim=1) - 1).abs().max() < 1e-5


def test_a_copy_is_pinned_holds_the_values_of_its_moment_and_lends_its_memory_to_the_next():
    model, buffers = build_tiny().to(DEVICE), Buffers()
    expected = {name: value.cpu().clone() for name, value in model.state_dict().items()}
    first = copy_to_host(model.state_dict(), buffers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert all(value.is_pinned() for value in first.values())
    assert all(torch.equal(value, expected[name]) for name, value in first.items())
    addresses = {name: value.data_ptr() for name, value in first.items()}
    second = copy_to_host(model.state_dict(), buffers)
    assert {name: value.data_ptr() for name, value in second.items()} == addresses
    assert not torch.equal(second["logit_scale"], expected["logit_scale"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_takes_more_sequences_than_a_grid_of_cuda_has_places(dtype):
    # As of 340 clips of 196 places each, whose frames TimeSformer attends over.
    torch.manual_seed(0)
    heads = [torch.randn(70_000, 2, 4, 16, device=DEVICE, dtype=dtype, requires_grad=True) for _ in range(3)]
    ours = attend_heads(*heads)
    with sdpa_kernel([SDPBackend.MATH]):
        wanted = attend_heads(*(value[-8:].double() for value in heads))
    assert (ours[-8:] - wanted).abs().max() < (1e-5 if dtype == torch.float32 else 3e-2)
    for gradient in torch.autograd.grad(ours.sum(), heads):
        assert gradient.isfinite().all() and gradient[-8:].abs().sum() > 0
