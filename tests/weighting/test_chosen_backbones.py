"""A pass over a part of the clips through real backbones: it gives what the pass over all of them gives for these."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

from mama_ray.data.batch import ClipBatch
from tests.models.timesformer.test_hypergradient import FORMS
from tests.models.timesformer.test_hypergradient import small_model as timesformer
from tests.models.violet.small import small_violet, some_frames
from tests.weighting.test_chosen_clips import all_draws, derivatives
from tests.weighting.toys import build_step, random_batch, random_weight_net

NUM_CLIPS = 4


def frames_and_words(_: nn.Module) -> ClipBatch:
    return random_batch(1, NUM_CLIPS)


def violet_batch(model: nn.Module) -> ClipBatch:
    return dataclasses.replace(random_batch(1, NUM_CLIPS), frames=some_frames(model.config, NUM_CLIPS))


BACKBONES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], ClipBatch]]] = {
    **{f"timesformer, {form}": (lambda form=form: timesformer(form), frames_and_words) for form in FORMS},
    "violet": (lambda: small_violet().train(), violet_batch),
}


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_mean_of_the_estimates_over_all_draws_is_the_derivative(backbone, keeps):
    make, batch_for = BACKBONES[backbone]
    model = make()
    step, batch = build_step(model, random_weight_net()), batch_for(model)
    exact = derivatives(step, batch, None, keeps=keeps)
    draws = list(all_draws(NUM_CLIPS, 2, batch.valid))
    drawn = torch.stack([derivatives(step, batch, draw, keeps=keeps) for draw in draws])
    torch.testing.assert_close(drawn.mean(0), exact, rtol=1e-7, atol=1e-10)
    assert len(drawn) == 4 and drawn.std(0).norm() > 0.01 * exact.norm()
