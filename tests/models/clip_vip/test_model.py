import math

import pydantic
import pytest
import torch
import torch.nn.functional as F

from mama_ray.models.clip_vip.model import ClipVip, ClipVipConfig, LogitScaleConfig

GOLDEN_VIDEO = [-0.23898746741829305, 0.4125042285503758, -0.1410762632013076, -0.28252260125267226]
GOLDEN_TEXT = [0.3806615244159757, 0.21636668587377883, -0.29281454521453343, -0.3352522396246304]


def _info_nce(model: ClipVip, frames: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    video, text = model(frames, token_ids)
    return F.cross_entropy(model.logit_scale.exp() * video @ text.T, torch.arange(len(video)))


def test_every_trainable_parameter_gets_gradient(model, frames, token_ids):
    _info_nce(model, frames, token_ids).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # A constant added to all keys shifts all logits of a query alike: the softmax cannot see it.
        if not name.endswith("k_proj.bias"):
            assert parameter.grad.abs().max() > 0, name


def test_contrastive_features_do_not_see_the_other_modality(model, frames, token_ids):
    video, text = model(frames, token_ids)
    assert torch.equal(model(frames, token_ids.flip(0))[0], video)
    assert torch.equal(model(255 - frames, token_ids)[1], text)
    (video_gradients,) = torch.autograd.grad(video.sum(), [model.text_projection.weight], allow_unused=True)
    assert video_gradients is None


def test_features_do_not_depend_on_the_rest_of_the_batch(model, frames, token_ids):
    video, text = model(frames, token_ids)
    for row in range(4):
        alone = model(frames[row : row + 1], token_ids[row : row + 1])
        torch.testing.assert_close(alone[0][0], video[row], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(alone[1][0], text[row], rtol=1e-12, atol=1e-12)


def test_features_equal_the_committed_vector(small_config):
    """A change of eps, layout or order moves these numbers; the weights are a formula, so no generator can."""
    model = ClipVip(small_config).double()
    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(model.named_parameters())):
            wave = torch.arange(parameter.numel(), dtype=torch.float64).mul(0.7).add(number).sin()
            parameter.copy_(0.3 * wave.reshape(parameter.shape) + ("norm" in name and "weight" in name))
    frames = torch.arange(3 * 16 * 16 * 3).mul(37).remainder(256).to(torch.uint8).reshape(1, 3, 16, 16, 3)
    video, text = model(frames, torch.tensor([[3, 17, 5, 39, 39]]))
    torch.testing.assert_close(video[0, :4], torch.tensor(GOLDEN_VIDEO, dtype=torch.float64), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(text[0, :4], torch.tensor(GOLDEN_TEXT, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_autocast_gives_float32_unit_features_close_to_full_precision(model, frames, token_ids):
    model.float()
    exact = model(frames, token_ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = model(frames, token_ids)
        loss = _info_nce(model, frames, token_ids)
    loss.backward()
    for ours, wanted in zip(features, exact, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.norm(dim=1), torch.ones(4))
        assert (ours * wanted).sum(dim=1).min() > 0.99
        assert not torch.equal(ours, wanted)
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


def test_half_precision_parameters_still_give_float32_features(model, frames, token_ids):
    video, text = model.bfloat16()(frames, token_ids)
    assert video.dtype == text.dtype == torch.float32


def test_features_without_gradient_equal_those_with(model, frames, token_ids):
    with torch.no_grad():
        video, text = model(frames, token_ids)
    assert not video.requires_grad
    with_gradient = model(frames, token_ids)
    assert torch.equal(video, with_gradient[0])
    assert torch.equal(text, with_gradient[1])


def test_logit_scale_is_clamped_to_its_bounds(model):
    assert model.logit_scale_bounds == (0.0, math.log(200))
    for value, wanted in ((9.0, math.log(200)), (-1.0, 0.0), (3.0, 3.0)):
        with torch.no_grad():
            model.logit_scale.fill_(value)
        model.clamp_logit_scale_()
        assert model.logit_scale.item() == wanted


def test_frozen_logit_scale_takes_no_gradient(small_config):
    frozen = small_config.model_copy(update={"logit_scale": LogitScaleConfig(frozen=True)})
    assert not ClipVip(frozen).logit_scale.requires_grad
    assert ClipVip(small_config).logit_scale.requires_grad


def test_two_models_of_one_seed_are_equal_and_of_two_seeds_are_not(small_config):
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.detach().flatten() for p in ClipVip(small_config).parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


@pytest.mark.parametrize(
    "fields", [{"image_size": 50}, {"pixel_std": (0.1, 0.0, 0.1)}, {"logit_scale": {"init": 6.0}}, {"num_proxies": 0}]
)
def test_impossible_config_is_refused(fields):
    with pytest.raises(pydantic.ValidationError):
        ClipVipConfig.model_validate(fields)
