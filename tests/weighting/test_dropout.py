"""Dropout and batch statistics in a step: every pass is of the function that the training pass computed."""

import copy

import pytest
import torch
from torch import nn

from mama_ray.weighting.draws import Draws, RunningStatistics
from mama_ray.weighting.features import encode_functionally
from tests.weighting.answering_toys import noisy_model, question_batch, question_step, reference
from tests.weighting.test_hypergradient import relative_error
from tests.weighting.toys import weight_gradients


@pytest.mark.parametrize("meta_size", [3, 6])  # a shared step keeps a tape for the former only
@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
@pytest.mark.parametrize("method", ["forward_mode", "second_order"])
def test_hypergradient_with_dropout_and_batch_statistics_equals_the_second_order_graph(method, arrangement, meta_size):
    step = question_step(noisy_model(), hypergradient=method, arrangement=arrangement)
    batch, meta_batch = question_batch(1, 6), question_batch(2, meta_size)
    phi, theta = reference(step, batch, meta_batch)
    assert relative_error(weight_gradients(step, batch, meta_batch), phi) < 1e-8
    assert all(gradient.abs().max() > 0 for gradient in phi)
    for name, gradient in zip(step.parameters, theta, strict=True):
        torch.testing.assert_close(step.parameters[name].grad, gradient, rtol=1e-8, atol=1e-12, msg=name)
    # The masks have a say: those of another step give another hypergradient.
    step.compute_gradients(batch, meta_batch, step=1)
    other = [parameter.grad for parameter in step.weighting.parameters()]
    assert relative_error(other, phi) > 1e-2
    assert relative_error(other, reference(step, batch, meta_batch, number=1)[0]) < 1e-8


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
def test_micro_batches_have_masks_of_their_own_and_an_exact_hypergradient(arrangement):
    step = question_step(noisy_model(), num_micro_batches=2, arrangement=arrangement)
    batch, meta_batch = question_batch(1, 8), question_batch(2, 6)
    phi, theta = reference(step, batch, meta_batch, meta_parts=2)
    assert relative_error(weight_gradients(step, batch, meta_batch), phi) < 1e-8
    for name, gradient in zip(step.parameters, theta, strict=True):
        torch.testing.assert_close(step.parameters[name].grad, gradient, rtol=1e-8, atol=1e-12, msg=name)


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
def test_micro_batches_equal_one_batch_where_nothing_is_drawn_or_counted(arrangement):
    batch, meta_batch = question_batch(1, 7), question_batch(2, 5)
    model = noisy_model(0.0, has_statistics=False)
    phis, thetas = [], []
    for num_micro_batches in (1, 3):
        step = question_step(copy.deepcopy(model), num_micro_batches=num_micro_batches, arrangement=arrangement)
        phis.append(weight_gradients(step, batch, meta_batch))
        thetas.append([parameter.grad for parameter in step.parameters.values()])
    assert relative_error(*phis) < 1e-9 and relative_error(*thetas) < 1e-9


@pytest.mark.parametrize("options", [{}, {"arrangement": "faithful"}, {"num_micro_batches": 3}, {"meta": False}])
def test_running_statistics_after_a_step_are_those_of_a_plain_forward_pass(options):
    options = dict(options)
    has_meta = options.pop("meta", True)
    model, twin = noisy_model(), noisy_model()
    batch, meta_batch = question_batch(1, 6), question_batch(2, 3)
    for number in range(2):
        step = question_step(model, **options)
        step.compute_gradients(batch, meta_batch if has_meta else None, step=number, measure_lookahead=has_meta)
        encode_functionally(  # functional calls move a module's own buffers: this is a plain pass
            twin,
            {},
            batch,
            num_micro_batches=options.get("num_micro_batches", 1),
            autocast=step.autocast,
            draws=Draws(0, number),
        )
    ours, theirs = dict(model.named_buffers()), dict(twin.named_buffers())
    assert any("running_mean" in name for name in ours)
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
    assert int(ours["head.block.norm.num_batches_tracked"]) == 2 * options.get("num_micro_batches", 1)


def test_statistics_are_put_back_when_a_pass_fails_and_a_layer_in_eval_mode_is_left_alone():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3).eval(), nn.BatchNorm1d(3, track_running_stats=False))
    before = list(model.buffers())

    def fail() -> None:
        with RunningStatistics(model).kept():
            model(torch.randn(4, 3))
            assert model[0].num_batches_tracked == 1 and model[1].running_mean is before[3]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(now is then for now, then in zip(model.buffers(), before, strict=True))
    assert model[0].num_batches_tracked == 0 and not model[0].running_mean.any()


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
def test_gradient_checkpointing_changes_nothing(arrangement):
    batch, meta_batch = question_batch(1, 6), question_batch(2, 3)
    phis, thetas, statistics = [], [], []
    for recomputes in (False, True):
        model = noisy_model()
        model.head.recomputes = recomputes
        model.model.set_gradient_checkpointing(recomputes)
        step = question_step(model, arrangement=arrangement)
        phis.append(weight_gradients(step, batch, meta_batch))
        thetas.append([parameter.grad for parameter in step.parameters.values()])
        statistics.append(list(model.buffers()))
    assert relative_error(*phis) < 1e-9 and relative_error(*thetas) < 1e-9
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*statistics, strict=True))


def test_a_step_leaves_the_generator_as_it_was_and_draws_by_its_number_alone():
    batch, meta_batch = question_batch(1, 6), question_batch(2, 3)
    results = []
    for seed, number in ((0, 3), (7, 3), (7, 4)):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        results.append(question_step(noisy_model()).compute_gradients(batch, meta_batch, step=number))
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(results[0].losses, results[1].losses)
    assert not torch.equal(results[1].losses, results[2].losses)
