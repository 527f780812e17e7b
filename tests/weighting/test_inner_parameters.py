"""A lookahead that moves some of the trained parameters: exact for that, and cheap where they are the last layers."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mama_ray.data.batch import ClipBatch
from mama_ray.errors import UserError
from mama_ray.models.settings import LoraConfig
from mama_ray.weighting.features import FeatureModel
from mama_ray.weighting.settings import InnerStepConfig
from mama_ray.weighting.step import WeightedStep
from mama_ray.weighting.tape import Tape
from mama_ray.weighting.weight_net import compute_sample_weights
from tests.weighting.test_hypergradient import relative_error
from tests.weighting.test_trained_part import small_clip
from tests.weighting.toys import build_step, random_batch, random_weight_net, weight_gradients

LAST_LAYERS = ("*.layers.1", "*_projection", "logit_scale")
RESTRICTED = {
    "last layers": LAST_LAYERS,
    "one tower": ("text_model",),
    "in the middle": ("*.layers.0.mlp",),
    "the scale": ("logit_scale",),
}


def restricted_step(patterns: tuple[str, ...], *, lora: LoraConfig | None = None, **options) -> WeightedStep:
    inner = InnerStepConfig(**{"lr": 0.05, "parameters": patterns} | options.pop("inner", {}))
    model = FeatureModel(small_clip(lora=lora))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return build_step(model, random_weight_net(), inner=inner, optimizer=optimizer, **options)


def reference(step: WeightedStep, batch: ClipBatch, meta_batch: ClipBatch) -> list[torch.Tensor]:
    """The second-order graph of phi -> L_meta(theta'(phi)), in which the other parameters stay where they are."""
    moved = step._meta_step.parameters
    with sdpa_kernel(SDPBackend.MATH):
        losses = step._functional_losses(step.parameters, batch)
        weights = compute_sample_weights(step.weighting, losses.detach(), "sum_global")
        gradients = torch.autograd.grad((weights * losses).sum(), list(moved.values()), create_graph=True)
        scale: float | torch.Tensor = step.meta.inner.lr
        if step.meta.inner.relative:
            length = torch.cat([value.detach().flatten() for value in moved.values()]).norm()
            scale = scale * length / torch.cat([gradient.flatten() for gradient in gradients]).norm()
        ahead = {
            name: value - scale * gradient for (name, value), gradient in zip(moved.items(), gradients, strict=True)
        }
        meta_loss = step._functional_losses(dict(step.parameters) | ahead, meta_batch).mean()
        return list(torch.autograd.grad(meta_loss, list(step.weighting.parameters())))


@pytest.mark.parametrize("meta_size", [4, 8])  # products are kept for the former only
@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
@pytest.mark.parametrize("part", RESTRICTED)
def test_hypergradient_equals_the_second_order_graph_of_the_restricted_problem(part, arrangement, meta_size):
    step = restricted_step(RESTRICTED[part], arrangement=arrangement)
    batch, meta_batch = random_batch(1, 8), random_batch(2, meta_size)
    exact = reference(step, batch, meta_batch)
    assert relative_error(weight_gradients(step, batch, meta_batch), exact) < 1e-6
    assert all(gradient.abs().max() > 0 for gradient in exact)
    whole = reference(restricted_step(()), batch, meta_batch)
    assert relative_error(exact, whole) > 1e-2


@pytest.mark.parametrize(
    "options",
    [
        {"inner": {"relative": True}},
        {"hypergradient": "second_order"},
        {"lora": LoraConfig(rank=2, targets=("*.self_attn",))},
        {"num_micro_batches": 2},
    ],
)
def test_it_is_exact_with_other_settings_too(options):
    step = restricted_step(("*.layers.1",), **options)
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    assert relative_error(weight_gradients(step, batch, meta_batch), reference(step, batch, meta_batch)) < 1e-6


def test_estimates_of_a_restricted_lookahead_have_its_hypergradient_as_their_mean():
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    step = restricted_step(LAST_LAYERS, tangent_share=0.5)
    exact = torch.cat([gradient.flatten() for gradient in reference(step, batch, meta_batch)])
    drawn = []
    for number in range(100):
        step.compute_gradients(batch, meta_batch, step=number)
        drawn.append(torch.cat([parameter.grad.flatten() for parameter in step.weighting.parameters()]))
    noise = (torch.stack(drawn) - exact).square().sum(1).mean().sqrt() / len(drawn) ** 0.5
    assert (torch.stack(drawn).mean(0) - exact).norm() < 3 * noise


def test_all_trained_parameters_keep_their_gradients():
    """The meta batch's backward pass leaves nothing in those that the lookahead does not move."""
    batch, found = random_batch(1, 8), []
    for patterns, meta_batch in (((), None), (LAST_LAYERS, random_batch(2, 4))):
        step = restricted_step(patterns)
        step.compute_gradients(batch, meta_batch)
        found.append({name: value.grad for name, value in step.parameters.items()})
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-15)


def test_the_passes_begin_at_the_first_layer_that_moves():
    """Calls within the first layer: training, meta batch; and products beside those of a plain step."""
    batch, meta_batch, extra = random_batch(1, 8), random_batch(2, 2), {}
    for patterns, num_calls in (((), 3), (LAST_LAYERS, 2)):
        step, calls = restricted_step(patterns), []
        layer = step.model.model.vision_model.encoder.layers[0].self_attn.q_proj
        layer.register_forward_hook(lambda *_, to=calls: to.append(1))
        with FlopCounterMode(display=False) as of_plain:
            step.compute_gradients(batch)
        del calls[:]
        with FlopCounterMode(display=False) as count:
            step.compute_gradients(batch, meta_batch)
        assert len(calls) == num_calls
        extra[patterns] = count.get_total_flops() - of_plain.get_total_flops()
    assert extra[LAST_LAYERS] < 0.7 * extra[()]


def test_the_tape_keeps_nothing_of_the_training_graph_alive():
    model = FeatureModel(small_clip())
    moved = {name: value for name, value in model.named_parameters() if ".layers.1." in name}
    tape = Tape(moved)
    with tape.record(model):
        outputs = model(random_batch(1, 8))
    kept = [call.output for call in tape.constants._calls if call is not None]
    assert kept and all(tensor.grad_fn is None for tensor in kept if isinstance(tensor, torch.Tensor))
    assert outputs.video.requires_grad


def test_a_pattern_that_no_trained_parameter_fits_is_told():
    with pytest.raises(UserError, match="meta.inner.parameters names no trained parameter"):
        restricted_step(("*.layers.7",))
