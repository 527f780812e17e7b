"""What every backbone of the table promises (models/dual_encoder.py), at a size of a few thousand parameters."""

import json
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from mama_ray.errors import UserError
from mama_ray.models.clip_vip.presets import PRESETS as CLIP_VIP_PRESETS
from mama_ray.models.dual_encoder import DualEncoder, DualEncoderConfig
from mama_ray.models.hf_encoder.architectures import ARCHITECTURES
from mama_ray.models.pretrained import (
    BACKBONES,
    capture_pretrained,
    describe_model,
    from_preset,
    from_pretrained,
    preset,
    save_pretrained,
    with_new_weights,
    write_pretrained,
)
from mama_ray.models.vgt.model import VgtConfig
from tests.models.tiny_backbones import TINY

STEP = 1e-5
FOREIGN = set(ARCHITECTURES)  # model types of others that a backbone reads, and never writes


@pytest.fixture(params=sorted(TINY))
def model(request) -> DualEncoder:
    """A float64 model none of whose parameters lies at a value that hides an error."""
    torch.manual_seed(0)
    model = BACKBONES[request.param.split()[0]].build_fresh(TINY[request.param]).to(torch.float64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale":
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def pixels_for(config: DualEncoderConfig) -> torch.Tensor:
    return torch.randint(0, 256, (4, config.num_frames, config.image_size, config.image_size, 3), dtype=torch.uint8)


def features_for(config: VgtConfig) -> dict[str, torch.Tensor]:
    clips = (4, config.num_clips, config.num_frames // config.num_clips)
    regions = torch.randn(*clips, config.num_regions, config.region_dim + 5)
    return {"frames": torch.randn(*clips, config.frame_dim), "regions": regions}


# By model_type: what it takes for four clips, where that is no pixels.
INPUTS: dict[str, Callable] = {"vgt": features_for}
# Backbones that normalise over the batch in training: there, other clips and the mode change a clip's features.
OVER_THE_BATCH = {"vgt"}


@pytest.fixture
def frames(model) -> torch.Tensor | dict[str, torch.Tensor]:
    return INPUTS.get(model.model_type, pixels_for)(model.config)


def flipped(frames: torch.Tensor | dict[str, torch.Tensor]) -> torch.Tensor | dict[str, torch.Tensor]:
    return {name: part.flip(0) for name, part in frames.items()} if isinstance(frames, dict) else frames.flip(0)


@pytest.fixture
def token_ids(model) -> torch.Tensor:
    """Texts of several lengths, filled up with the pad id, or where a config has none with end-of-text."""
    end = model.config.vocab_size - 1
    ids = torch.randint(1, end, (4, model.config.context_length))
    for row, length in enumerate((2, 4, 7, model.config.context_length)):
        ids[row, length - 1 :] = end
        ids[row, length:] = getattr(model.config, "pad_id", end)
    return ids


def gradients_of(model: DualEncoder, frames, token_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of all that trains; zero where features do not depend on it, as on what only answers use."""
    names, parameters = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True)
    video, text = model(frames, token_ids)
    loss = (model.logit_scale.exp() * video @ text.T).logsumexp(dim=1).sum()
    # A bias of the logits is no part of this loss.
    return dict(zip(names, torch.autograd.grad(loss, parameters, materialize_grads=True), strict=True))


def test_every_backbone_is_held_to_these_promises():
    assert {name.split()[0] for name in TINY} == set(BACKBONES) - FOREIGN


def test_backbone_is_a_module_with_all_that_is_owed(model):
    assert isinstance(model, DualEncoder) and isinstance(model, torch.nn.Module)
    assert isinstance(model.config, DualEncoderConfig)
    assert model.model_type in BACKBONES


def test_config_says_what_the_model_takes_and_a_fresh_model_is_of_that_config(model):
    config = model.config
    assert config in TINY.values()
    assert with_new_weights(model).config == config
    assert min(config.image_size, config.num_frames, config.vocab_size, config.context_length) > 0
    low, high = model.logit_scale_bounds
    assert low < model.logit_scale.item() < high


def test_features_have_unit_norm_and_one_shape(model, frames, token_ids):
    video, text = model(frames, token_ids)
    assert video.shape == text.shape and len(video) == len(token_ids)
    for features in (video, text):
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(4, dtype=features.dtype))
    assert torch.equal(video, model.encode_video(frames)) and torch.equal(text, model.encode_text(token_ids))


def test_half_precision_weights_give_unit_norm_in_float32(model, frames, token_ids):
    for features in model.to(torch.bfloat16)(frames, token_ids):
        assert features.dtype == torch.float32
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(4))


def test_features_are_deterministic_in_training_and_evaluation(model, frames, token_ids):
    first = model.train()(frames, token_ids)
    others = [model(frames, token_ids)]
    if model.model_type in OVER_THE_BATCH:
        model.eval()(frames, token_ids)  # the running statistics have moved, and move no more
        assert all(torch.equal(a, b) for a, b in zip(model(frames, token_ids), model(frames, token_ids), strict=True))
    else:
        others.append(model.eval()(frames, token_ids))
    for again in others:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(first, again, strict=True))


def test_towers_never_see_each_other(model, frames, token_ids):
    video, text = model(frames, token_ids)
    assert torch.equal(model(frames, token_ids.flip(0))[0], video)
    assert torch.equal(model(flipped(frames), token_ids)[1], text)


def test_forward_mode_equals_a_finite_difference(model, frames, token_ids):
    direction = {name: torch.randn_like(p) / p.numel() ** 0.5 for name, p in model.named_parameters()}
    with torch.no_grad():
        forth, back = (
            functional_call(
                model, {n: p + sign * STEP * direction[n] for n, p in model.named_parameters()}, (frames, token_ids)
            )
            for sign in (1, -1)
        )
    with sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(p.detach(), direction[name]) for name, p in model.named_parameters()}
        tangents = [forward_ad.unpack_dual(f).tangent for f in functional_call(model, duals, (frames, token_ids))]
    for ours, ahead, behind in zip(tangents, forth, back, strict=True):
        assert ours.abs().max() > 0
        torch.testing.assert_close(ours, (ahead - behind) / (2 * STEP), rtol=1e-6, atol=1e-8)


def test_gradient_checkpointing_changes_neither_values_nor_gradients(model, frames, token_ids):
    assert not model.gradient_checkpointing
    plain, plain_gradients = model(frames, token_ids), gradients_of(model, frames, token_ids)
    model.set_gradient_checkpointing(True)
    assert model.gradient_checkpointing
    assert all(torch.equal(a, b) for a, b in zip(plain, model(frames, token_ids), strict=True))
    gradients = gradients_of(model, frames, token_ids)
    assert all(torch.equal(gradients[name], value) for name, value in plain_gradients.items())
    model.set_gradient_checkpointing(False)
    assert not model.gradient_checkpointing


@pytest.mark.parametrize("is_captured", [False, True])
def test_saved_model_loads_with_the_same_config_weights_and_features(model, frames, token_ids, tmp_path, is_captured):
    model = model.float()
    if is_captured:
        write_pretrained(capture_pretrained(model), tmp_path)
    else:
        save_pretrained(model, tmp_path)
    loaded = from_pretrained(tmp_path)
    assert type(loaded) is type(model) and loaded.config == model.config
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    for feature, again in zip(model(frames, token_ids), loaded(frames, token_ids), strict=True):
        assert torch.equal(feature, again)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == model.model_type


def test_folder_is_described_as_it_loads(model, tmp_path):
    save_pretrained(model.float(), tmp_path)
    assert describe_model(tmp_path) == from_pretrained(tmp_path).config


def test_clamp_puts_the_scale_back_within_its_bounds(model):
    low, high = model.logit_scale_bounds
    for value, wanted in ((low - 1.0, low), (high + 1.0, high), ((low + high) / 2, (low + high) / 2)):
        with torch.no_grad():
            model.logit_scale.fill_(value)
        model.clamp_logit_scale_()
        assert model.logit_scale.item() == pytest.approx(wanted)
        assert model.logit_scale.requires_grad


def test_every_preset_belongs_to_one_backbone_and_is_built_by_it():
    own = {id(backbone): backbone for backbone in BACKBONES.values()}
    names = [name for backbone in own.values() for name in backbone.PRESETS]
    assert len(names) == len(set(names))
    assert preset("tiny") is CLIP_VIP_PRESETS["tiny"]
    assert from_preset("tiny", {"vocab_size": 40}).config.vocab_size == 40


def _cut(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:3000])


def _drop_a_key(folder):
    state = load_file(folder / "model.safetensors")
    del state[next(name for name in sorted(state) if name != "logit_scale")]
    save_file(state, folder / "model.safetensors")


def _scale_out_of_bounds(folder):
    state = load_file(folder / "model.safetensors")
    save_file(state | {"logit_scale": torch.tensor(100.0)}, folder / "model.safetensors")


def _other_field(folder):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"num_frames": content["num_frames"] + 1}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),
        lambda folder: (folder / "config.json").unlink(),
        _cut,
        _drop_a_key,
        _scale_out_of_bounds,
        _other_field,
    ],
)
def test_describing_a_damaged_folder_fails_as_loading_it_does(model, tmp_path, damage):
    save_pretrained(model.float(), tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError) as loading:
        from_pretrained(tmp_path)
    with pytest.raises(UserError) as describing:
        describe_model(tmp_path)
    assert str(describing.value) == str(loading.value)


def test_what_fills_a_text_up_changes_nothing(model, token_ids):
    features = model.encode_text(token_ids)
    for row, length in enumerate((2, 4, 7)):
        torch.testing.assert_close(model.encode_text(token_ids[row : row + 1, :length])[0], features[row])
