"""Features as projections of any norm: the same directions, for models that can give them."""

import numpy as np
import pytest
import torch

from mama_ray.data.tokenizer import Tokenizer
from mama_ray.errors import UserError
from mama_ray.models.feature_encoder import FeatureEncoder
from mama_ray.models.pretrained import from_preset
from mama_ray.models.violet.model import Violet
from tests.models.tiny_backbones import TINY


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["a red green blue white thing moves 0123456789"] * 3, 514, 24)


@pytest.mark.parametrize("preset", ["tiny", "tsf_tiny"])
def test_raw_features_have_the_directions_of_the_others(preset, tokenizer):
    torch.manual_seed(0)
    model = from_preset(preset, {"vocab_size": tokenizer.vocab_size, "context_length": 24})
    frames = np.random.default_rng(0).integers(0, 256, (3, 2, *[model.config.image_size] * 2, 3), np.uint8)
    texts = ["a red thing", "a blue thing moves"]
    unit, raw = (FeatureEncoder(model, tokenizer, batch_size=4, is_raw=is_raw) for is_raw in (False, True))
    for found, wanted in (
        (raw.video_features(frames), unit.video_features(frames)),
        (raw.text_features(texts), unit.text_features(texts)),
    ):
        norms = np.linalg.norm(found, axis=1, keepdims=True)
        assert (np.abs(norms - 1) > 1e-3).all()
        np.testing.assert_allclose(found / norms, wanted, atol=1e-6)


def test_a_model_without_projections_is_refused(tokenizer):
    with pytest.raises(UserError, match="raw scores: got a model of type violet"):
        FeatureEncoder(Violet(TINY["violet"]), tokenizer, batch_size=4, is_raw=True)
