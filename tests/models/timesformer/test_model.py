"""Sizes of the presets, texts, and the logit scale."""

import pytest
import torch

from mama_ray.config import with_overrides
from mama_ray.models.pretrained import from_preset, outline_preset
from mama_ray.models.timesformer.model import TimesformerConfig
from mama_ray.models.timesformer.presets import PRESETS
from tests.models.timesformer.small import small_timesformer, some_frames, some_texts

COUNTS = {
    "tsf_tiny": (810_209, 615_072),
    "tsf_b": (177_662_977, 114_169_344),
    "tsf_l": (527_513_857, 403_994_624),
    "tsf_l_hr": (471_143_937, 404_322_304),
    "tsf_joint_b": (149_296_129, 85_802_496),
    "tsf_joint_l": (426_703_105, 303_183_872),
}


def count(model, start: str = "") -> int:
    return sum(parameter.numel() for name, parameter in model.named_parameters() if name.startswith(start))


def test_presets_have_the_published_numbers_of_parameters():
    models = {name: outline_preset(name) for name in PRESETS}
    assert {name: (count(model), count(model, "visual.")) for name, model in models.items()} == COUNTS


@pytest.mark.parametrize("tower", ["clip", "distilbert"])
def test_what_stands_behind_the_end_of_a_text_changes_nothing(tower):
    model = small_timesformer({"text_tower": tower})
    texts = some_texts(model.config)
    features = model.encode_text(texts)
    if tower == "clip":  # whatever it is; DistilBERT sees all that is no padding
        other = texts.clone()
        other[0, 3:], other[1, 6:] = 7, 30
        assert torch.equal(model.encode_text(other), features)
    for row, length in enumerate((3, 6, 10)):
        torch.testing.assert_close(model.encode_text(texts[row : row + 1, :length])[0], features[row])


def test_a_text_that_lost_its_end_is_read_at_its_largest_id():
    """As the release reads the long texts that its tokenizer cuts (`long_texts: lavila`)."""
    model = small_timesformer()
    texts = torch.tensor([[37, 5, 12, 33, 8, 38, 2, 38, 9, 4]])
    torch.testing.assert_close(model.encode_text(texts), model.encode_text(texts[:, :6]))
    assert not torch.allclose(model.encode_text(texts), model.encode_text(texts[:, :5]))


@pytest.mark.parametrize("tower", ["clip", "distilbert"])
def test_every_token_of_a_text_counts(tower):
    model = small_timesformer({"text_tower": tower})
    texts = some_texts(model.config)
    for place in range(9):
        other = texts.clone()
        other[2, place] = (other[2, place] + 1) % 38 + 1
        assert (model.encode_text(other) - model.encode_text(texts))[2].abs().max() > 1e-5


def test_scale_is_learned_within_bounds_or_frozen():
    learned = from_preset("tsf_tiny", {})
    assert learned.logit_scale.requires_grad
    assert learned.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        learned.logit_scale.fill_(9.0)
    learned.clamp_logit_scale_()
    assert learned.logit_scale.item() == pytest.approx(4.6052, abs=1e-4)
    frozen = from_preset("tsf_tiny", {"logit_scale.frozen": True})
    assert not frozen.logit_scale.requires_grad
    assert all(PRESETS[name].logit_scale.frozen for name in PRESETS if name != "tsf_tiny")


def test_a_step_repeats_its_masks_where_the_generator_is_reset():
    model = small_timesformer({"text_tower": "distilbert", "text_dropout": 0.3, "drop_path": 0.4}).train()
    frames, texts = some_frames(), some_texts(model.config)

    def features(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat(model(frames, texts))

    plain = features(0)
    assert torch.equal(features(0), plain) and not torch.equal(features(1), plain)
    model.set_gradient_checkpointing(True)
    assert torch.equal(features(0), plain)


@pytest.mark.parametrize(
    "fields",
    [
        {"patch_size": 15},
        {"pixel_std": (1.0, 0.0, 1.0)},
        {"text_tower": "bert"},
        {"attention": "space"},
        {"drop_path": 1.0},
        {"text_tower": "distilbert", "context_length": 13},
    ],
)
def test_sizes_that_do_not_fit_are_refused(fields):
    with pytest.raises(ValueError, match=r"wanted|Input should be"):
        TimesformerConfig.model_validate(small_timesformer().config.model_dump() | fields)


def test_kind_of_tokens_follows_the_text_tower():
    tiny = PRESETS["tsf_tiny"]
    assert (tiny.tokenizer_kind, tiny.pad_id) == ("clip", 511)
    distilbert = with_overrides(tiny, {"text_tower": "distilbert"})
    assert (distilbert.tokenizer_kind, distilbert.pad_id) == ("bert", 0)
