"""The weighted step as a whole: what is weighted, both backward passes, micro-batches, the weight net's movement."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mama_ray.models.clip_vip.model import ClipVip, ClipVipConfig
from mama_ray.models.transformer import EncoderConfig
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.weighting.settings import InnerStepConfig, WeightingConfig
from mama_ray.weighting.weight_net import compute_sample_weights
from tests.weighting.toys import (
    NUM_TOKENS,
    VOCABULARY,
    ToyEncoder,
    build_step,
    random_batch,
    random_weight_net,
    weight_gradients,
)


def parameter_gradients(step) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in step.parameters.values()]


def reference_gradients(step, batch, weights) -> list[torch.Tensor]:
    losses = step._functional_losses(step.parameters, batch)
    return list(torch.autograd.grad((weights * losses).sum(), list(step.parameters.values())))


def assert_all_close(ours, theirs, rtol=1e-9):
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=rtol, atol=1e-12)


def test_uniform_step_is_the_gradient_of_the_mean_loss():
    step = build_step(ToyEncoder(), weighting_config=WeightingConfig(kind="uniform"))
    batch = random_batch(1, 8)
    step.compute_gradients(batch)
    losses = step._functional_losses(step.parameters, batch)
    assert_all_close(parameter_gradients(step), torch.autograd.grad(losses.mean(), list(step.parameters.values())))


def test_weight_multiplies_the_total_loss():
    step = build_step(ToyEncoder(), random_weight_net())
    batch = random_batch(1, 8)
    result = step.compute_gradients(batch)
    assert_all_close(parameter_gradients(step), reference_gradients(step, batch, result.weights))
    assert float(result.scalars["train/loss"]) == pytest.approx(float((result.weights * result.losses).sum()))


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
def test_real_step_uses_old_weights_when_shared_and_new_ones_when_faithful(arrangement):
    net = random_weight_net()
    step = build_step(ToyEncoder(), net, arrangement=arrangement, weight_lr=50.0)
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    losses = step._functional_losses(step.parameters, batch).detach()
    before = compute_sample_weights(net, losses, "sum_global").detach()
    step.compute_gradients(batch, meta_batch)
    after = compute_sample_weights(net, losses, "sum_global").detach()
    assert not torch.allclose(before, after, rtol=1e-3)
    expected = before if arrangement == "shared" else after
    assert_all_close(parameter_gradients(step), reference_gradients(step, batch, expected))


def test_both_steps_normalise_alike():
    """With a weight net that does not move, the faithful real step equals the lookahead's gradient."""
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    gradients = []
    for arrangement in ("shared", "faithful"):
        step = build_step(ToyEncoder(), random_weight_net(), arrangement=arrangement, weight_lr=0.0)
        step.compute_gradients(batch, meta_batch)
        gradients.append(parameter_gradients(step))
    assert_all_close(*gradients)


def test_one_step_moves_weight_net():
    net = random_weight_net()
    before = [parameter.clone() for parameter in net.parameters()]
    step = build_step(ToyEncoder(), net, weight_lr=0.1)
    step.compute_gradients(random_batch(1, 8), random_batch(2, 4))
    assert all((now != then).any() for now, then in zip(net.parameters(), before, strict=True))


def test_hypergradient_norm_is_that_of_the_weight_nets_gradient():
    net = random_weight_net()
    step = build_step(ToyEncoder(), net, weight_lr=0.1)
    result = step.compute_gradients(random_batch(1, 8), random_batch(2, 4))
    norm = torch.cat([parameter.grad.flatten() for parameter in net.parameters()]).norm()
    torch.testing.assert_close(result.scalars["meta/hypergradient_norm"], norm)
    assert norm > 0
    assert "meta/hypergradient_norm" not in step.compute_gradients(random_batch(1, 8)).scalars, "no meta step"


def test_meta_step_lowers_the_meta_loss_after_the_lookahead():
    from tests.weighting.toys import meta_loss_after_lookahead

    step = build_step(ToyEncoder(), random_weight_net(), weight_lr=1.0)
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    before = meta_loss_after_lookahead(step, batch, meta_batch, differentiable=False)
    step.compute_gradients(batch, meta_batch)
    assert meta_loss_after_lookahead(step, batch, meta_batch, differentiable=False) < before


def test_joint_learning_descends_the_training_loss_itself():
    net = random_weight_net()
    config = WeightingConfig(learner="joint")
    step = build_step(ToyEncoder(), net, weighting_config=config, weight_lr=0.0)
    batch = random_batch(1, 8)
    assert not step.is_meta_step(0)
    result = step.compute_gradients(batch)
    objective = (compute_sample_weights(net, result.losses, "sum_global") * result.losses).sum()
    expected = torch.autograd.grad(objective, list(net.parameters()))
    assert_all_close([parameter.grad for parameter in net.parameters()], expected)


class CheckpointedEncoder(ToyEncoder):
    """Recomputes its video tower in the backward pass."""

    def encode_video(self, frames):
        return checkpoint(super().encode_video, frames, use_reentrant=False)


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
@pytest.mark.parametrize("method", ["forward_mode", "second_order"])
def test_checkpointing_does_not_change_the_hypergradient(method, arrangement):
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    gradients = []
    for encoder in (ToyEncoder(), CheckpointedEncoder()):
        step = build_step(encoder, random_weight_net(), hypergradient=method, arrangement=arrangement)
        gradients.append(weight_gradients(step, batch, meta_batch) + parameter_gradients(step))
    assert_all_close(*gradients)


@pytest.mark.parametrize("method", ["forward_mode", "second_order"])
def test_checkpointing_the_real_towers_does_not_change_the_hypergradient(method):
    tower = EncoderConfig(width=8, num_layers=2, num_heads=2)
    config = ClipVipConfig(
        video=tower,
        text=tower,
        dim=6,
        image_size=2,
        patch_size=1,
        num_frames=2,
        vocab_size=VOCABULARY,
        context_length=NUM_TOKENS,
    )
    batch, meta_batch = random_batch(1, 6), random_batch(2, 4)
    gradients = []
    for is_checkpointed in (False, True):
        torch.manual_seed(0)
        model = ClipVip(config).double()
        model.set_gradient_checkpointing(is_checkpointed)
        step = build_step(model, random_weight_net(), hypergradient=method, inner=InnerStepConfig(lr=1.0))
        gradients.append(weight_gradients(step, batch, meta_batch) + parameter_gradients(step))
    assert_all_close(*gradients)
    assert all(gradient.abs().max() > 0 for gradient in gradients[0][:4])


def test_a_logit_scale_held_by_its_bounds_is_like_a_frozen_one():
    """The lookahead clamps the scale as the real step does, and no direction points out of the bounds."""
    outcomes = []
    for is_frozen in (False, True):
        model = ToyEncoder()
        if is_frozen:
            model.logit_scale.requires_grad_(False)
        else:
            model.logit_scale_bounds = (model.logit_scale.item(), model.logit_scale.item())
        step = build_step(model, random_weight_net(), inner=InnerStepConfig(lr=1.0))
        result = step.compute_gradients(random_batch(1, 8), random_batch(2, 4))
        outcomes.append([result.scalars["meta/loss"], *(value.grad for value in step.weighting.parameters())])
    assert_all_close(*outcomes)


def test_invalid_clips_change_nothing():
    """A batch with unreadable clips gives the gradients of the batch without them."""
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    valid = torch.tensor([True, True, False, True, False, True, True, True])
    masked = type(batch)(batch.frames, batch.token_ids, batch.rows, valid)
    small = type(batch)(batch.frames[valid], batch.token_ids[valid], batch.rows[valid], valid[valid])
    gradients = []
    for given in (masked, small):
        step = build_step(ToyEncoder(), random_weight_net())
        gradients.append(weight_gradients(step, given, meta_batch) + parameter_gradients(step))
    assert_all_close(*gradients)


def test_frozen_parameters_stay_out_of_the_step():
    model = ToyEncoder()
    model.logit_scale.requires_grad_(False)
    step = build_step(model, random_weight_net())
    weight_gradients(step, random_batch(1, 8), random_batch(2, 4))
    assert model.logit_scale.grad is None
    assert "model.logit_scale" not in step.parameters


def test_weights_of_corrupted_pairs_fall_over_training():
    """30 % of the training pairs get another pair's text; the meta-set is clean."""
    torch.manual_seed(0)
    num, dim = 200, 16
    projection = torch.randn(2 * 2 * 3 * 2, dim)

    class Linear(ToyEncoder):
        def encode_text(self, token_ids):
            return nn.functional.normalize(self.text_map(token_ids.to(self.logit_scale.dtype)), dim=-1)

    frames = torch.randint(0, 256, (num, 2, 2, 2, 3), dtype=torch.uint8)
    texts = ((frames.flatten(1).float() / 255 - 0.5) @ projection * 100).long()  # the "caption" is a view of the clip
    is_bad = torch.zeros(num, dtype=torch.bool)
    is_bad[:45] = True
    train_texts = texts.clone()
    train_texts[:45] = texts[:45].roll(1, 0)
    model = Linear()
    model.text_map = nn.Linear(dim, 6).double()
    nn.init.normal_(model.text_map.weight, std=0.01)
    step = build_step(
        model, None, objective=ContrastiveConfig(margin=0.0), weighting_config=WeightingConfig(hidden_dim=16)
    )
    step.weighting.double()
    step.weight_optimizer = torch.optim.Adam(step.weighting.parameters(), lr=0.01)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)

    def batch_of(rows, all_texts):
        return type(random_batch(0, 1))(frames[rows], all_texts[rows], rows, torch.ones(len(rows), dtype=torch.bool))

    ratios = []
    for _ in range(150):
        rows = torch.randperm(150, generator=generator)[:50]
        meta_rows = 150 + torch.randperm(50, generator=generator)[:25]
        result = step.compute_gradients(batch_of(rows, train_texts), batch_of(meta_rows, texts))
        optimizer.step()
        ratios.append(float(result.weights[is_bad[rows]].mean() / result.weights[~is_bad[rows]].mean()))
    assert sum(ratios[-20:]) / 20 < 0.9
    assert sum(ratios[-20:]) < sum(ratios[:20])


def test_meta_step_tells_the_norm_of_the_weight_net_s_gradient_and_zero_where_there_is_none():
    step = build_step(ToyEncoder(), random_weight_net())
    norm = step.compute_gradients(random_batch(1, 8), random_batch(2, 4)).scalars["meta/hypergradient_norm"]
    gradient = torch.cat([parameter.grad.flatten() for parameter in step.weighting.parameters()])
    torch.testing.assert_close(norm, gradient.norm())
    with torch.no_grad():
        step.weighting.output.bias.fill_(-1e6)  # all raw weights vanish: uniform ones, nothing to learn from
    assert step.compute_gradients(random_batch(1, 8), random_batch(2, 4)).scalars["meta/hypergradient_norm"] == 0
    assert "meta/hypergradient_norm" not in step.compute_gradients(random_batch(1, 8)).scalars
