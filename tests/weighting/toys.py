"""Small dual encoders and batches for exactness tests, and the published second-order way as their reference."""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mama_ray.data.batch import ClipBatch
from mama_ray.data.classes.names import HAS_GENERATED, IS_GENERATED, OF_TEXT, OF_VIDEO
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.objectives.objective import ContrastiveObjective, Features, Objective, Shared, TrainingObjective
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.weighting.dials import build_dials
from mama_ray.weighting.features import FeatureModel
from mama_ray.weighting.inputs import describe_inputs
from mama_ray.weighting.settings import InnerStepConfig, MetaConfig, WeightingConfig
from mama_ray.weighting.step import WeightedStep
from mama_ray.weighting.weight_net import WeightNet, build_weighting, compute_sample_weights

DTYPE = torch.float64
NUM_TOKENS, VOCABULARY, NUM_ANSWERS = 5, 11, 4


class ToyEncoder(nn.Module, DualEncoder):
    """A dual encoder of two small MLPs with the interface of the real ones."""

    def __init__(self, seed: int = 0, dim: int = 6):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.video = nn.Sequential(nn.Linear(2 * 2 * 3 * 2, 8), nn.Tanh(), nn.Linear(8, dim))
            self.embedding = nn.Embedding(VOCABULARY, 8)
            self.text = nn.Linear(8, dim)
            self.logit_scale = nn.Parameter(torch.tensor(math.log(8.0)))
        self.to(DTYPE)

    model_type = "toy"
    config = None
    logit_scale_bounds = (0.0, math.log(200.0))
    gradient_checkpointing = False

    def forward(self, frames: Tensor, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.encode_video(frames), self.encode_text(token_ids)

    def encode_video(self, frames: Tensor) -> Tensor:
        pixels = frames.to(self.logit_scale.dtype).flatten(1) / 255.0
        return F.normalize(self.video(pixels), dim=-1)

    def encode_text(self, token_ids: Tensor) -> Tensor:
        return F.normalize(self.text(self.embedding(token_ids).tanh().mean(1)), dim=-1)

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        self.gradient_checkpointing = enabled

    @torch.no_grad()
    def clamp_logit_scale_(self) -> None:
        self.logit_scale.clamp_(*self.logit_scale_bounds)


def random_batch(seed: int, size: int) -> ClipBatch:
    generator = torch.Generator().manual_seed(seed)
    batch = ClipBatch(
        frames=torch.randint(0, 256, (size, 2, 2, 2, 3), generator=generator, dtype=torch.uint8),
        token_ids=torch.randint(0, VOCABULARY, (size, NUM_TOKENS), generator=generator),
        rows=torch.arange(size),
        valid=torch.ones(size, dtype=torch.bool),
        targets={"answer": torch.randint(0, NUM_ANSWERS, (size,), generator=generator)},
    )
    for side in (OF_VIDEO, OF_TEXT):
        verbs = torch.randint(0, 3, (size,), generator=generator)
        nouns = torch.randint(0, 2, (size, 4), generator=generator, dtype=torch.uint8)
        batch.targets.update({side + "verb": torch.eye(3, dtype=torch.uint8)[verbs], side + "noun": nouns})
    batch.targets[IS_GENERATED] = torch.randint(0, 2, (size,), generator=generator).bool()
    return batch


def with_generated(batch: ClipBatch, seed: int = 0) -> ClipBatch:
    """The batch with generated captions of most clips, and a clip's own text where it has none."""
    generator = torch.Generator().manual_seed(1000 + seed)
    told = torch.randint(0, VOCABULARY, (len(batch), NUM_TOKENS), generator=generator)
    has_generated = torch.arange(len(batch)) % 4 != 2
    ids = torch.where(has_generated[:, None], told, batch.token_ids)
    return replace(batch, generated_ids=ids, targets=batch.targets | {HAS_GENERATED: has_generated})


class AnswerLoss:
    """A task: which of a few fixed answers a clip gives, by the cosine of its features and the answer's."""

    def __init__(self, dim: int = 6):
        generator = torch.Generator().manual_seed(4)
        self.answers = F.normalize(torch.randn(NUM_ANSWERS, dim, generator=generator, dtype=DTYPE), dim=-1)

    def __call__(self, outputs: Features, batch: ClipBatch) -> Tensor:
        logits = outputs.logit_scale.exp() * (outputs.video + outputs.text) @ self.answers.T
        return F.cross_entropy(logits, batch.targets["answer"], reduction="none")


class HeadOutputs(NamedTuple):
    """Features, a query of each clip, and the table of answers that all clips share."""

    video: Tensor
    text: Tensor
    logit_scale: Shared[Tensor]
    logit_bias: Shared[Tensor]
    queries: Tensor
    answers: Shared[Tensor]


class HeadModel(FeatureModel):
    """A dual encoder with a head that asks which of a few learned answers a clip gives."""

    def __init__(self, dim: int = 6):
        super().__init__(ToyEncoder(dim=dim))
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.query = nn.Linear(dim, 3)
            self.answers = nn.Parameter(torch.randn(NUM_ANSWERS, 3))
        self.to(DTYPE)

    def forward(self, batch: ClipBatch) -> HeadOutputs:
        features = super().forward(batch)
        return HeadOutputs(*features, self.query(features.video * features.text).tanh(), self.answers * 1.0)


class HeadLoss:
    """Cross-entropy of the answer among those of the head."""

    def __call__(self, outputs: HeadOutputs, batch: ClipBatch) -> Tensor:
        return F.cross_entropy(outputs.queries @ outputs.answers.T, batch.targets["answer"], reduction="none")


INPUTS = WeightingConfig(
    inputs=("loss", "loss_video_to_text", "loss_text_to_video", "cosine", "average_loss", "quality", "topic"),
    categories={"topic": ("a", "b", "c")},
)
"""All that a weight net may see; `quality` is a column of numbers."""


def with_columns(batch: ClipBatch, seed: int = 0) -> ClipBatch:
    """The batch with the columns of INPUTS, some numbers and topics not known."""
    generator = torch.Generator().manual_seed(seed)
    quality = torch.randn(len(batch), generator=generator)
    topic = torch.randint(0, 5, (len(batch),), generator=generator).float()
    quality[1::5], topic[2::5] = torch.nan, torch.nan
    return replace(batch, weight_inputs=torch.stack([quality, topic], dim=1))


def random_weight_net(seed: int = 1, hidden_dim: int = 7, config: WeightingConfig | None = None) -> WeightNet:
    """A weight net whose curve is far from flat, so that a wrong hypergradient shows."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = WeightNet(hidden_dim, inputs=describe_inputs(config or WeightingConfig())).to(DTYPE)
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.7)
    return net


def build_step(
    model: nn.Module,
    weighting: nn.Module | None = None,
    *,
    weighting_config: WeightingConfig | None = None,
    objective: ContrastiveConfig | None = None,
    task: Objective | None = None,
    eta: float = 1.0,
    optimizer: torch.optim.Optimizer | None = None,
    num_micro_batches: int = 1,
    weight_lr: float = 0.0,
    num_samples: int = 64,
    **meta,
) -> WeightedStep:
    """A step whose weight optimiser (SGD) leaves phi where it is unless weight_lr is given, so phi.grad can be read."""
    config = weighting_config or WeightingConfig()
    weighting = weighting if weighting is not None else build_weighting(config)
    parameters = list(weighting.parameters())
    objective = objective or ContrastiveConfig(margin=0.2)
    of_meta = MetaConfig(**({"inner": InnerStepConfig(lr=0.1)} | meta))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        dials = build_dials(of_meta, objective, config, "cpu")
    if dials is not None:
        dials.module.to(DTYPE)
    return WeightedStep(
        model if isinstance(model, FeatureModel | DistributedDataParallel) else FeatureModel(model),
        weighting,
        objective=TrainingObjective(ContrastiveObjective(objective), task, eta),
        weighting_config=config,
        meta=of_meta,
        optimizer=optimizer,
        weight_optimizer=torch.optim.SGD(parameters, lr=weight_lr) if parameters else None,
        num_micro_batches=num_micro_batches,
        num_samples=num_samples,
        dials=dials,
    )


def weight_gradients(step: WeightedStep, batch: ClipBatch, meta_batch: ClipBatch) -> list[Tensor]:
    """Return phi's hypergradient as the step computes it."""
    step.compute_gradients(batch, meta_batch)
    return [parameter.grad.clone() for parameter in step.weighting.parameters()]


def meta_loss_after_lookahead(
    step: WeightedStep, batch: ClipBatch, meta_batch: ClipBatch, *, differentiable: bool
) -> Tensor:
    """The published way: the whole map phi -> L_meta(theta'(phi)), SGD lookahead, through a second-order graph."""
    losses = step._functional_losses(step.parameters, batch)
    weights = compute_sample_weights(step.weighting, losses.detach(), step.weighting_config.normalisation)
    parameters = list(step.parameters.values())
    gradients = torch.autograd.grad(
        (weights * losses).sum(), parameters, create_graph=differentiable, materialize_grads=True
    )
    ahead = {
        name: value - step.meta.inner.lr * gradient
        for (name, value), gradient in zip(step.parameters.items(), gradients, strict=True)
    }
    return step._functional_losses(ahead, meta_batch).mean()
