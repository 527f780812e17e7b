"""Weights are learned through a TimeSformer exactly, what a step drops at random included."""

import pytest
import torch

from mama_ray.models.timesformer.model import Timesformer, TimesformerConfig
from mama_ray.models.transformer import EncoderConfig
from tests.weighting.toys import (
    NUM_TOKENS,
    VOCABULARY,
    build_step,
    random_batch,
    random_weight_net,
    weight_gradients,
)

FORMS = {
    "divided": {"drop_path": 0.4},
    "joint": {"attention": "joint", "drop_path": 0.4},
    "distilbert": {"text_tower": "distilbert", "text_dropout": 0.2},
}


def small_model(form: str) -> Timesformer:
    tower = EncoderConfig(width=8, num_layers=2, num_heads=2)
    sizes = {"image_size": 2, "patch_size": 1, "num_frames": 2, "vocab_size": VOCABULARY, "dim": 6}
    config = TimesformerConfig.model_validate(
        {"video": tower, "text": tower, "context_length": NUM_TOKENS, "place_init_std": 0.3} | sizes | FORMS[form]
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Timesformer(config).double()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name != "logit_scale":
                    parameter.add_(0.2 * torch.randn_like(parameter))
    return model.train()


@pytest.mark.parametrize("form", sorted(FORMS))
def test_hypergradient_is_that_of_the_second_order_graph(form):
    batch, meta_batch = random_batch(1, 6), random_batch(2, 3)
    ours, theirs = (
        weight_gradients(build_step(small_model(form), random_weight_net(), hypergradient=method), batch, meta_batch)
        for method in ("forward_mode", "second_order")
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-13)
        assert mine.abs().max() > 0
