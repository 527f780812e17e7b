"""Classification as a step learns it: per sample, weighted, with the exact hypergradient; its heads and their rate."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mama_ray.data.batch import ClipBatch
from mama_ray.data.classes.names import CLASS
from mama_ray.models.dual_encoder import PooledEncoder
from mama_ray.models.heads.classes import ClassHeads, clip_feature, clip_feature_dim
from mama_ray.objectives.classification import ClassificationObjective
from mama_ray.objectives.objective import NoContrast, TrainingObjective
from mama_ray.weighting.class_model import ClassModel
from mama_ray.weighting.settings import InnerStepConfig, MetaConfig, WeightingConfig
from mama_ray.weighting.step import WeightedStep
from tests.weighting.answering_toys import reference
from tests.weighting.test_hypergradient import relative_error
from tests.weighting.toys import DTYPE, ToyEncoder, random_batch, random_weight_net, weight_gradients

SIZES = {"verb": 3, "noun": 5, "action": 4}


class PooledToy(ToyEncoder, PooledEncoder):
    """The toy with its hidden layer as the feature before the projection."""

    pooled_width = 8

    def pool_video(self, frames: Tensor) -> Tensor:
        return self.video[:2](frames.to(self.logit_scale.dtype).flatten(1) / 255.0)


def class_batch(seed: int, size: int) -> ClipBatch:
    batch = random_batch(seed, size)
    generator = torch.Generator().manual_seed(seed + 500)
    for kind, number in SIZES.items():
        batch.targets[CLASS + kind] = torch.randint(0, number, (size,), generator=generator)
    batch.targets[CLASS + "noun"][1] = -1
    return batch


def class_model(*, has_contrast: bool = False) -> ClassModel:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model, head = PooledToy(), ClassHeads(8, SIZES, 0.5)
        for layer in head.layers.values():
            torch.nn.init.normal_(layer.weight, std=0.5)
    return ClassModel(model, head, has_contrast=has_contrast).to(DTYPE)


def class_step(model: ClassModel, **meta) -> WeightedStep:
    objective = TrainingObjective(NoContrast(), ClassificationObjective(tuple(SIZES.items()), 0.1), 0.7)
    net = random_weight_net()
    return WeightedStep(
        model,
        net,
        objective=objective,
        weighting_config=WeightingConfig(),
        meta=MetaConfig(inner=InnerStepConfig(lr=0.1), **meta),
        weight_optimizer=torch.optim.SGD(net.parameters(), lr=0.0),
    )


def test_a_loss_is_the_sum_of_the_cross_entropies_of_the_classes_that_a_clip_has():
    model, batch = class_model().eval(), class_batch(1, 6)
    found = ClassificationObjective(tuple(SIZES.items()), 0.1)(model(batch), batch)
    feature, wanted = clip_feature(model.model, batch.frames), 0
    for kind, layer in model.head.layers.items():
        target = batch.targets[CLASS + kind]
        wanted += F.cross_entropy(layer(feature), target, ignore_index=-1, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
def test_the_hypergradient_is_that_of_the_second_order_graph_under_the_same_dropout(arrangement):
    step = class_step(class_model(), arrangement=arrangement)
    batch, meta_batch = class_batch(1, 8), class_batch(2, 5)
    wanted, gradients = reference(step, batch, meta_batch)
    assert relative_error(weight_gradients(step, batch, meta_batch), wanted) < 1e-9
    for name, gradient in zip(step.parameters, gradients, strict=True):
        own = step.parameters[name].grad
        torch.testing.assert_close(torch.zeros_like(gradient) if own is None else own, gradient, rtol=1e-9, atol=1e-12)


def test_heads_start_small_and_read_the_feature_before_the_projection():
    assert clip_feature_dim(PooledToy()) == 8
    head = ClassHeads(512, {"verb": 400})
    weight = head.layers["verb"].weight.detach()
    assert float(weight.std()) == pytest.approx(0.01, rel=0.02) and not head.layers["verb"].bias.any()
    model, batch = class_model(has_contrast=True), random_batch(1, 3)
    outputs = model(batch)
    assert outputs.video.shape == outputs.text.shape == (3, 6) and outputs.class_logits.shape == (3, 12)
