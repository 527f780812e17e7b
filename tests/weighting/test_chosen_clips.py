"""A hypergradient from the tangents of a part of the clips: its mean over draws, its parts, and what it costs."""

import dataclasses
import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from mama_ray.data.batch import ClipBatch
from mama_ray.errors import UserError
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.weighting.chosen_clips import ChosenClips
from mama_ray.weighting.directional import directional_pass
from mama_ray.weighting.drawn_tangents import TangentDraw, draw_tangents
from mama_ray.weighting.draws import Draws
from mama_ray.weighting.features import encode_functionally, unwrap
from mama_ray.weighting.hypergradient import directional_derivatives, estimated_derivatives
from mama_ray.weighting.settings import MetaConfig
from mama_ray.weighting.step import WeightedStep
from mama_ray.weighting.tape import Tape
from tests.weighting.answering_toys import noisy_model, question_batch, question_step
from tests.weighting.test_directional import random_like, small_clip
from tests.weighting.toys import (
    HeadLoss,
    HeadModel,
    ToyEncoder,
    build_step,
    random_batch,
    random_weight_net,
    with_generated,
)

NUM_DRAWS = 200
PAIRS = ContrastiveConfig(generated_share=0.4, margin=0.2)


def answering_step(**options) -> WeightedStep:
    return question_step(noisy_model(has_statistics=False), **options)


CASES = {
    "toy": lambda **options: build_step(ToyEncoder(), random_weight_net(), **options),
    "head": lambda **options: build_step(HeadModel(), random_weight_net(), task=HeadLoss(), **options),
    "towers": lambda **options: build_step(small_clip(), random_weight_net(), **options),
    "dropout": answering_step,
    "pairs": lambda **options: build_step(small_clip(), random_weight_net(), objective=PAIRS, **options),
}


def batch_of(case: str, size: int) -> ClipBatch:
    if case == "pairs":
        return with_generated(random_batch(1, size))
    return question_batch(1, size) if case == "dropout" else random_batch(1, size)


def all_draws(num_clips: int, size: int, valid: Tensor) -> Iterator[TangentDraw]:
    """Every draw that there is, each as probable as the others: of each neighbourhood one, or what would lie behind."""
    for places in itertools.product(range(size), repeat=-(-num_clips // size)):
        is_drawn = torch.zeros(len(places) * size, dtype=torch.bool)
        is_drawn[[size * number + place for number, place in enumerate(places)]] = True
        yield TangentDraw(is_drawn[:num_clips] & valid, valid, size)


def derivatives(step: WeightedStep, batch: ClipBatch, draw: TangentDraw | None, *, keeps: bool) -> Tensor:
    """c_i along a random direction, exact or from a draw; with the products of a training pass, or without."""
    model, direction, tape = unwrap(step.model), random_like(step.parameters), Tape() if keeps else None
    options = {"num_micro_batches": step.num_micro_batches, "autocast": step.autocast, "draws": Draws(0, 3)}
    with tape.record(model) if tape is not None else torch.no_grad():
        outputs = encode_functionally(model, step.parameters, batch, **options)
    if draw is None:
        return directional_derivatives(
            lambda values: step._functional_losses(values, batch, draws=options["draws"]),
            step.parameters,
            direction,
            "forward_mode",
            tape=tape,
        )
    return estimated_derivatives(
        lambda values: encode_functionally(model, values, batch, chosen=draw.chosen, **options),
        lambda of_all: step._losses_of(of_all, batch),
        outputs,
        step.parameters,
        direction,
        draw,
        has_all_texts=model.encodes_texts_apart,
        tape=tape,
    )


@pytest.mark.parametrize(("keeps", "num_micro_batches"), [(True, 1), (False, 1), (False, 2)])
@pytest.mark.parametrize("case", CASES)
def test_the_mean_of_the_estimates_over_all_draws_is_the_derivative(case, keeps, num_micro_batches):
    """One of three: the last neighbourhood is not whole, and a clip is not valid. So the hypergradient, linear in
    them, has the exact one as its mean, too."""
    step, batch = CASES[case](num_micro_batches=num_micro_batches), batch_of(case, 8)
    batch.valid[3] = False
    exact = derivatives(step, batch, None, keeps=keeps)
    drawn = torch.stack([derivatives(step, batch, draw, keeps=keeps) for draw in all_draws(8, 3, batch.valid)])
    torch.testing.assert_close(drawn.mean(0), exact, rtol=1e-8, atol=1e-11)
    assert len(drawn) == 27 and drawn.std(0).norm() > 0.01 * exact.norm()


@pytest.mark.parametrize("case", CASES)
def test_the_draw_of_all_clips_gives_the_derivatives_themselves(case):
    step, batch = CASES[case](), batch_of(case, 6)
    draw = TangentDraw(torch.ones(6, dtype=torch.bool), torch.ones(6, dtype=torch.bool), 1)
    exact = derivatives(step, batch, None, keeps=True)
    torch.testing.assert_close(derivatives(step, batch, draw, keeps=True), exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_the_hypergradients_of_many_steps_have_the_exact_one_as_their_mean(share):
    batch, meta_batch = random_batch(1, 24), random_batch(2, 4)
    exact = gradients_of(CASES["toy"](), batch, meta_batch)
    step = CASES["toy"](tangent_share=share)
    drawn = torch.stack([gradients_of(step, batch, meta_batch, number) for number in range(NUM_DRAWS)])
    noise = (drawn - exact).square().sum(1).mean().sqrt()
    assert (drawn.mean(0) - exact).norm() < 3 * noise / NUM_DRAWS**0.5
    assert noise > 0.05 * exact.norm()  # it is an estimate ...
    assert torch.cosine_similarity(drawn, exact[None]).mean() > 0.5  # ... worth having


def gradients_of(step: WeightedStep, batch: ClipBatch, meta_batch: ClipBatch, number: int = 0) -> Tensor:
    step.compute_gradients(batch, meta_batch, step=number)
    return torch.cat([parameter.grad.flatten() for parameter in step.weighting.parameters()])


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
def test_the_models_own_gradient_does_not_depend_on_the_draw(arrangement):
    found = []
    for share in (1.0, 0.5):
        step = CASES["towers"](tangent_share=share, arrangement=arrangement)
        step.compute_gradients(random_batch(1, 8), random_batch(2, 4))
        found.append([value.grad for value in step.parameters.values()])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_chosen_clips_have_the_outputs_and_tangents_that_they_have_among_all(case, keeps):
    """Dropout leaves them what it leaves them there."""
    step, batch, rows = CASES[case](), batch_of(case, 6), torch.tensor([1, 2, 5])
    model, direction, found = unwrap(step.model), random_like(step.parameters), []
    options = {"num_micro_batches": 1, "autocast": step.autocast, "draws": Draws(0, 3)}
    for chosen in (None, ChosenClips(rows, 6)):
        tape = Tape() if keeps else None
        if tape is not None:
            with tape.record(model):
                encode_functionally(model, step.parameters, batch, **options)
        with directional_pass(tape, chosen):
            duals = {
                name: forward_ad.make_dual(value.detach(), direction[name]) for name, value in step.parameters.items()
            }
            outputs = encode_functionally(model, duals, batch, chosen=chosen, **options)
            found.append([forward_ad.unpack_dual(output) for output in outputs])
    for of_all, of_part in zip(*found, strict=True):
        for whole, part in zip(of_all, of_part, strict=True):
            if whole is not None and whole.dim():
                expected = whole if len(part) == len(whole) else whole[rows]
                torch.testing.assert_close(part, expected, rtol=1e-9, atol=1e-12)


def test_pairs_of_one_clip_are_drawn_each_by_itself():
    """Three questions about the first clip, one about the second, two about the third: its frames come along once."""
    batch = random_batch(1, 6)
    batch = dataclasses.replace(batch, frames=batch.frames[:3], places=torch.tensor([0, 0, 0, 1, 2, 2]))
    part = batch.select(torch.tensor([0, 2, 5]))
    assert torch.equal(part.frames, batch.frames[[0, 2]])
    assert part.places.tolist() == [0, 0, 1] and torch.equal(part.token_ids, batch.token_ids[[0, 2, 5]])
    assert torch.equal(part.for_questions(part.frames), batch.for_questions(batch.frames)[[0, 2, 5]])


def test_one_of_each_neighbourhood_is_drawn_by_step_and_seed():
    valid = torch.ones(32, dtype=torch.bool)
    draws = [draw_tangents(valid, 0.25, Draws(seed, step)).is_drawn for seed in (0, 1) for step in range(50)]
    assert all((draw.view(8, 4).sum(1) == 1).all() for draw in draws)
    assert torch.equal(draws[3], draw_tangents(valid, 0.25, Draws(0, 3)).is_drawn)
    counts = torch.stack(draws).sum(0)
    assert counts.min() > 10 and counts.max() < 45  # of 100 draws, a quarter each


def test_a_part_of_the_clips_needs_that_part_of_the_products():
    from torch.utils.flop_counter import FlopCounterMode

    products = {}
    for share in (1.0, 0.5, 0.25):
        step = CASES["towers"](tangent_share=share)
        with FlopCounterMode(display=False) as count:
            step.compute_gradients(random_batch(1, 16), random_batch(2, 4))
        products[share] = count.get_total_flops()
    with FlopCounterMode(display=False) as count:
        CASES["towers"]().compute_gradients(random_batch(1, 16))
    full, half, quarter = (products[share] - count.get_total_flops() for share in (1.0, 0.5, 0.25))
    assert full - half == pytest.approx(2 * (half - quarter), rel=0.1) and half < 0.8 * full


def test_batch_statistics_and_other_methods_are_refused():
    with pytest.raises(UserError, match="batch normalisation"):
        question_step(noisy_model(), tangent_share=0.5)
    for wrong in ({"tangent_share": 0.3}, {"tangent_share": 0.5, "hypergradient": "finite_difference"}):
        with pytest.raises(ValueError, match="tangent_share"):
            MetaConfig(**wrong)
