"""A model that answers, with all in it that draws or counts: dropout, batch statistics, a question; in float64."""

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from mama_ray.data.batch import ClipBatch
from mama_ray.models.heads.head import ClassificationHead
from mama_ray.models.heads.settings import HeadConfig
from mama_ray.objectives.question_answering import AnsweringObjective
from mama_ray.weighting.draws import Draws, RunningStatistics
from mama_ray.weighting.features import encode_functionally, unwrap
from mama_ray.weighting.question_model import QuestionModel
from mama_ray.weighting.step import WeightedStep
from mama_ray.weighting.weight_net import compute_sample_weights
from tests.weighting.test_directional import small_clip
from tests.weighting.toys import DTYPE, NUM_ANSWERS, NUM_TOKENS, VOCABULARY, build_step, random_batch, random_weight_net

DIM, DROPOUT, ETA = 6, 0.3, 0.7


class NoisyBlock(nn.Module):
    """A residual sum behind dropout, then what VGT does to boxes: 1x1 convolution, batch statistics, ReLU; dropout."""

    def __init__(self, dropout: float, has_statistics: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(DIM, DIM)
        self.conv = nn.Conv2d(DIM, DIM, 1)
        self.norm = nn.BatchNorm2d(DIM) if has_statistics else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, video: Tensor) -> Tensor:
        video = video + self.dropout(self.linear(video))
        pixels = torch.stack([video, video.roll(1, 1)], dim=-1)[..., None]
        return F.dropout(self.norm(self.conv(pixels)).relu().mean((2, 3)), self.dropout.p, self.training)


class NoisyHead(ClassificationHead):
    """The plain head behind such a block, which may be recomputed in backward as transformer layers are."""

    def __init__(self, dropout: float = DROPOUT, has_statistics: bool = True) -> None:
        super().__init__(HeadConfig(hidden_dim=8, dropout=dropout), DIM, NUM_ANSWERS)
        self.block = NoisyBlock(dropout, has_statistics)
        self.recomputes = False

    def forward(self, encoder, video: Tensor, question: dict[str, Tensor]) -> Tensor:
        if self.recomputes and torch.is_grad_enabled():
            call = partial(functional_call, self.block, dict(self.block.named_parameters()))
            video = checkpoint(call, (video,), use_reentrant=False)
        else:
            video = self.block(video)
        return super().forward(encoder, video, question)


def question_batch(seed: int, size: int) -> ClipBatch:
    """A batch of clips with a question each; one answer is on no list."""
    batch = random_batch(seed, size)
    generator = torch.Generator().manual_seed(seed + 1000)
    batch.question["token_ids"] = torch.randint(0, VOCABULARY, (size, NUM_TOKENS), generator=generator)
    batch.targets["answer"][1] = -1
    return batch


def noisy_model(dropout: float = DROPOUT, *, has_statistics: bool = True) -> QuestionModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = QuestionModel(small_clip(), NoisyHead(dropout, has_statistics))
    return model.to(DTYPE)


def question_step(model: nn.Module, **options) -> WeightedStep:
    options = {"weight_lr": 0.0} | options
    return build_step(model, random_weight_net(), task=AnsweringObjective(), eta=ETA, **options)


def reference(
    step: WeightedStep,
    batch: ClipBatch,
    meta_batch: ClipBatch,
    *,
    number: int = 0,
    meta_parts: int = 1,
    shares: Mapping[str, float] | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """The hypergradient, and theta's gradient with today's weights, through the second-order graph under the step's
    masks; written with torch alone. `shares` are those of the learning rate, by name."""
    model = unwrap(step.model)
    draws, meta_draws = Draws(step._seed, number), Draws(step._seed, number, "meta")
    options = {"autocast": step.autocast}

    def losses_of(parameters, of, draws, num_parts):
        outputs = encode_functionally(model, parameters, of, num_micro_batches=num_parts, draws=draws, **options)
        return step.objective(outputs, of)

    with RunningStatistics(model).kept(), sdpa_kernel(SDPBackend.MATH):  # fused kernels have no double backward
        losses = losses_of(step.parameters, batch, draws, step.num_micro_batches)
        rule = step.weighting_config.normalisation
        weights = compute_sample_weights(step.weighting, losses.detach(), rule, valid=batch.valid)
        total, parameters = (weights * losses).sum(), list(step.parameters.values())
        gradients = torch.autograd.grad(total, parameters, create_graph=True, materialize_grads=True)
        ahead = {
            name: value - step.meta.inner.lr * (shares or {}).get(name, 1.0) * gradient
            for (name, value), gradient in zip(step.parameters.items(), gradients, strict=True)
        }
        meta_loss = losses_of(ahead, meta_batch, meta_draws, meta_parts).mean()
        phi = torch.autograd.grad(meta_loss, list(step.weighting.parameters()))
    return list(phi), [gradient.detach() for gradient in gradients]
