"""A step that trains a part of the model: adapters, unfrozen towers, layers with rates of their own."""

import copy
import weakref

import pytest
import torch
from torch import nn

from mama_ray.config import with_overrides
from mama_ray.models.clip_vip.model import ClipVip
from mama_ray.models.clip_vip.presets import PRESETS
from mama_ray.models.settings import LoraConfig
from mama_ray.models.stacks import levels_below_top
from mama_ray.models.trained_part import choose_trained_part
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.optim import build_optimizer, give_own_rate
from mama_ray.training.settings import OptimConfig
from mama_ray.weighting.directional import directional_pass
from mama_ray.weighting.features import FeatureModel
from mama_ray.weighting.settings import InnerStepConfig
from mama_ray.weighting.tape import Tape
from mama_ray.weighting.weight_net import compute_sample_weights
from tests.weighting.answering_toys import noisy_model, question_batch, question_step, reference
from tests.weighting.test_hypergradient import relative_error
from tests.weighting.toys import (
    DTYPE,
    NUM_TOKENS,
    VOCABULARY,
    build_step,
    meta_loss_after_lookahead,
    random_batch,
    random_weight_net,
    weight_gradients,
)

PARTS = {
    "adapters of attention": {"lora": LoraConfig(rank=2)},
    "adapters of all layers": {"lora": LoraConfig(rank=2, targets=("*",))},
    "adapters of the last layers": {"lora": LoraConfig(rank=2, targets=("*.layers.1.self_attn",), trained=())},
    "a frozen tower": {"freeze": ("vision_model", "visual_projection")},
    "frozen first layers": {"freeze": ("*.embeddings", "*.layers.0", "vision_model.pre_layrnorm")},
}


def small_clip(**part) -> ClipVip:
    sizes = {"video.width": 8, "video.num_layers": 2, "video.num_heads": 2, "text.width": 8, "text.num_layers": 2}
    sizes |= {"dim": 6, "image_size": 2, "patch_size": 1, "num_frames": 2, "logit_scale.init": 2.0}
    torch.manual_seed(0)
    config = with_overrides(PRESETS["tiny"], sizes | {"vocab_size": VOCABULARY, "context_length": NUM_TOKENS})
    model = ClipVip(config).to(DTYPE)
    choose_trained_part(model, **part)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale":
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


CASES = [(part, "forward_mode", "shared", "softmax") for part in PARTS] + [
    ("adapters of all layers", "forward_mode", "faithful", "softmax"),
    ("adapters of all layers", "second_order", "shared", "softmax"),
    ("adapters of attention", "forward_mode", "shared", "sigmoid"),
    ("frozen first layers", "forward_mode", "faithful", "sigmoid"),
]


@pytest.mark.parametrize(("part", "method", "arrangement", "loss"), CASES)
def test_hypergradient_equals_the_second_order_graph(part, method, arrangement, loss):
    model = FeatureModel(small_clip(**PARTS[part]), logit_bias=-2.0 if loss == "sigmoid" else None)
    step = build_step(
        model,
        random_weight_net(),
        objective=ContrastiveConfig(loss=loss, margin=0.2),
        hypergradient=method,
        arrangement=arrangement,
        inner=InnerStepConfig(lr=0.05),  # the logit scale stays within its bounds, which the reference has not
    )
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)  # half as many: products are kept
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        meta_loss = meta_loss_after_lookahead(step, batch, meta_batch, differentiable=True)
        reference = torch.autograd.grad(meta_loss, list(step.weighting.parameters()))
    ours = weight_gradients(step, batch, meta_batch)
    assert relative_error(ours, list(reference)) < 1e-6
    assert all(gradient.abs().max() > 0 for gradient in ours)
    trained = {f"model.{name}" for name, parameter in model.model.named_parameters() if parameter.requires_grad}
    assert step.parameters.keys() - {"logit_bias"} == trained
    assert all(p.grad is None for name, p in model.named_parameters() if name not in step.parameters)


@pytest.mark.parametrize("meta_size", [4, 8])  # products are kept for the former only
@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
def test_hypergradient_of_adapters_with_dropout_equals_the_second_order_graph(arrangement, meta_size):
    """Their own dropout alone: a CLIP-ViP has no other."""
    model = small_clip(lora=LoraConfig(rank=2, dropout=0.4, targets=("*.self_attn", "*.mlp")))
    step = build_step(model, random_weight_net(), arrangement=arrangement)
    batch, meta_batch = random_batch(1, 8), random_batch(2, meta_size)
    phi, theta = reference(step, batch, meta_batch)
    assert relative_error(weight_gradients(step, batch, meta_batch), phi) < 1e-6
    for name, gradient in zip(step.parameters, theta, strict=True):
        torch.testing.assert_close(step.parameters[name].grad, gradient, rtol=1e-8, atol=1e-12, msg=name)
    assert all(gradient.abs().max() > 0 for gradient in phi)
    step.compute_gradients(batch, meta_batch, step=1)  # other masks
    other = [parameter.grad for parameter in step.weighting.parameters()]
    assert relative_error(other, phi) > 1e-2
    assert relative_error(other, reference(step, batch, meta_batch, number=1)[0]) < 1e-6


@pytest.mark.parametrize("num_micro_batches", [2, 3])
def test_micro_batches_do_not_change_the_gradients_of_adapters(num_micro_batches):
    found = []
    for number in (1, num_micro_batches):
        step = build_step(small_clip(lora=LoraConfig(rank=2)), random_weight_net(), num_micro_batches=number)
        gradients = weight_gradients(step, random_batch(1, 8), random_batch(2, 4))
        found.append(gradients + [value.grad for value in step.parameters.values()])
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_checkpointing_does_not_change_the_gradients_of_adapters(dropout):
    found = []
    for is_checkpointed in (False, True):
        model = small_clip(lora=LoraConfig(rank=2, dropout=dropout))
        model.set_gradient_checkpointing(is_checkpointed)
        step = build_step(model, random_weight_net())
        gradients = weight_gradients(step, random_batch(1, 8), random_batch(2, 4))
        found.append(gradients + [value.grad for value in step.parameters.values()])
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("inner", ["sgd", "adam"])
def test_hypergradient_with_rates_by_layer_equals_the_second_order_graph(inner):
    """The lookahead's rates have the real step's shares, Adam's too."""
    model = small_clip()
    levels = {f"model.{name}": level for name, level in levels_below_top(model).items()}
    optimizer = build_optimizer(FeatureModel(model), OptimConfig(layer_decay=0.5), levels)
    config = InnerStepConfig(optimizer=inner, lr=0.01 if inner == "adam" else 0.5)
    step = build_step(model, random_weight_net(), optimizer=optimizer, inner=config)
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    if inner == "adam":  # moments that are not those of this batch alone
        step.compute_gradients(random_batch(3, 8))
        optimizer.step()
    values = list(step.parameters.values())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        losses = step._functional_losses(step.parameters, batch)
        weights = compute_sample_weights(step.weighting, losses.detach(), "sum_global")
        gradients = torch.autograd.grad((weights * losses).sum(), values, create_graph=True)
        ahead = {}
        for (name, value), gradient in zip(step.parameters.items(), gradients, strict=True):
            rate = config.lr * 0.5 ** levels[name]
            if inner == "sgd":
                ahead[name] = value - rate * gradient
                continue
            state = optimizer.state[value]
            first = (0.9 * state["exp_avg"] + 0.1 * gradient) / (1 - 0.9**2)
            second = (0.98 * state["exp_avg_sq"] + 0.02 * gradient**2) / (1 - 0.98**2)
            ahead[name] = value - rate * torch.where(second > 0, first / (second.clamp(min=1e-300).sqrt() + 1e-8), 0.0)
        meta_loss = step._functional_losses(ahead, meta_batch).mean()
        reference = torch.autograd.grad(meta_loss, list(step.weighting.parameters()))
    assert relative_error(weight_gradients(step, batch, meta_batch), list(reference)) < 1e-8
    same_rates = build_step(model, random_weight_net(), optimizer=torch.optim.AdamW(values), inner=config)
    if inner == "sgd":
        assert relative_error(weight_gradients(same_rates, batch, meta_batch), list(reference)) > 1e-3


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
def test_hypergradient_with_a_rate_of_the_heads_own_equals_the_second_order_graph(arrangement, layer_decay):
    """`task.head_lr_scale` is a share of the lookahead's rate as of the real step's, with rates by layer beside it."""
    share, batch, meta_batch = 5.0, question_batch(1, 6), question_batch(2, 3)
    model = noisy_model()
    levels = {f"model.{name}": level for name, level in levels_below_top(model.model).items()}
    optimizer = build_optimizer(model, OptimConfig(layer_decay=layer_decay), levels)
    give_own_rate(optimizer, model.head.parameters(), share)
    step = question_step(model, optimizer=optimizer, arrangement=arrangement)
    shares = {name: layer_decay**level for name, level in levels.items()}
    shares |= {name: share for name in step.parameters if name.startswith("head.")}
    phi, _ = reference(step, batch, meta_batch, shares=shares)
    assert relative_error(weight_gradients(step, batch, meta_batch), phi) < 1e-8
    assert relative_error(reference(step, batch, meta_batch)[0], phi) > 1e-2


def test_rates_of_one_share_change_no_bit_of_the_lookahead():
    model = small_clip()
    found = []
    for optimizer in (None, build_optimizer(FeatureModel(copy.deepcopy(model)), OptimConfig())):
        step = build_step(model, random_weight_net(), optimizer=optimizer)
        found.append(weight_gradients(step, random_batch(1, 8), random_batch(2, 4)))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))


@pytest.mark.parametrize(("freeze", "num_calls"), [((), 3), (("vision_model", "visual_projection"), 2)])
def test_frozen_tower_is_not_run_in_the_directional_pass(freeze, num_calls):
    """Training, meta batch, directional pass; behind the tower there is nothing that is trained."""
    model, calls = small_clip(freeze=freeze), []
    model.vision_model.encoder.layers[0].register_forward_hook(lambda *_: calls.append(1))
    step = build_step(model, random_weight_net())
    weight_gradients(step, random_batch(1, 8), random_batch(2, 4))
    assert len(calls) == num_calls
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize(
    ("part", "num_products"), [("a frozen tower", 2 * 6 + 1), ("frozen first layers", 2 * (6 + 1))]
)
def test_tape_has_the_products_of_what_is_trained_alone(part, num_products):
    model, tape = FeatureModel(small_clip(**PARTS[part])), Tape()
    with tape.record(model):
        model(random_batch(1, 8))
    assert len(tape) == num_products


def test_random_numbers_after_a_frozen_part_are_those_of_the_training_pass():
    class Drawing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3), requires_grad=False)
            self.trained = torch.nn.Linear(3, 3)
            self.inner = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5)).requires_grad_(False)

        def forward(self, inputs):
            return torch.nn.functional.dropout(self.trained(self.inner(inputs)), 0.5)

    model, inputs, tape = Drawing(), torch.randn(40, 3), Tape()
    torch.manual_seed(1)
    with tape.record(model):
        first = model(inputs)
    torch.manual_seed(1)
    with directional_pass(tape):
        again = model(inputs)
    assert torch.equal(first, again)


def test_products_of_frozen_parts_are_let_go_of_while_the_training_pass_goes_on():
    """Trained in its upper layers alone, a model may have a hundred below them, whose products no graph holds."""
    tape, products, alive = Tape(), [], []

    class Frozen(nn.Linear):
        def forward(self, input):
            hidden = super().forward(input)
            products.extend(weakref.ref(entry) for entry in tape._entries)
            return super().forward(hidden)

    model = nn.Sequential(Frozen(4, 4).requires_grad_(False), nn.Linear(4, 2))
    model[1].register_forward_pre_hook(lambda *_: alive.extend(one() for one in products))
    with tape.record(model):
        model(torch.ones(3, 4))
    assert alive == [None]
