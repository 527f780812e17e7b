"""The methods of a meta-optimised step on one model and batch: the project's own, the published one, a difference."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mama_ray.config import with_overrides
from mama_ray.data.batch import ClipBatch
from mama_ray.models.adapters import is_factor
from mama_ray.models.clip_vip.model import ClipVip
from mama_ray.models.pretrained import preset
from mama_ray.models.settings import LoraConfig
from mama_ray.models.trained_part import choose_trained_part
from mama_ray.objectives.objective import ContrastiveObjective
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.weighting.features import FeatureModel
from mama_ray.weighting.hypergradient import norm_of
from mama_ray.weighting.settings import InnerStepConfig, MetaConfig, WeightingConfig
from mama_ray.weighting.step import WeightedStep
from mama_ray.weighting.weight_net import WeightNet, compute_sample_weights

SIZES = {
    "tiny": {},
    # Large enough that matrix products dominate, small enough for two cores.
    "small": {
        "video.width": 384, "video.num_layers": 6, "video.num_heads": 6, "text.width": 256, "text.num_layers": 6,
        "text.num_heads": 4, "dim": 256, "image_size": 96, "patch_size": 16, "vocab_size": 2000,
    },
}  # fmt: skip
INNER_LR = 0.01
DIFFERENCE_RADIUS = 0.01  # SAMA's


class Method(NamedTuple):
    """A way to take a step; `kind` is plain, published, difference or one of the package's hypergradients."""

    kind: str
    arrangement: str = "shared"
    meta_share: float = 0.0
    """Size of the meta batch over that of the training batch."""
    tangent_share: float = 1.0
    """Share of the clips that give tangents."""
    moved: tuple[str, ...] = ()
    """Patterns of the parameters that the lookahead moves; all without."""

    @property
    def name(self) -> str:
        words = {"plain": "plain", "published": "second order, published", "difference": "central difference (SAMA)"}
        name = words.get(self.kind, f"{self.kind.replace('_', ' ')}, {self.arrangement}")
        name += f", tangents of {self.tangent_share:g}" if self.tangent_share < 1 else ""
        name += f", moving {' '.join(self.moved)}" if self.moved else ""
        return name + (f", r = {self.meta_share:g}" if self.meta_share else "")


PLAIN = Method("plain")
KINDS = [
    ("published", "faithful"),
    ("difference", "shared"),
    ("forward_mode", "shared"),
    ("finite_difference", "shared"),
    ("forward_mode", "faithful"),
    ("finite_difference", "faithful"),
]


class Case:
    """One method on one model and batch; calling it takes a step's gradients. The same seed gives the same numbers."""

    def __init__(
        self,
        method: Method,
        *,
        preset_name: str,
        batch_size: int,
        device: str,
        dtype: torch.dtype = torch.float32,
        has_bf16: bool = False,
        lora: LoraConfig | None = None,
        freeze: Sequence[str] = (),
    ):
        torch.manual_seed(0)
        config = preset("tiny" if preset_name in SIZES else preset_name)
        model = ClipVip(with_overrides(config, SIZES.get(preset_name, {})))
        choose_trained_part(model, freeze=freeze, lora=lora)
        if lora is not None:  # a second factor of zero would leave the first without a gradient
            fill_factors(model)
        model = model.to(device, dtype)
        self.batch = make_batch(model, batch_size, device)
        self.meta_batch = make_batch(model, max(1, round(batch_size * method.meta_share)), device)
        net = WeightNet(64).to(device, dtype)
        self.method = method
        is_ours = method.kind not in ("plain", "published", "difference")
        options = {"hypergradient": method.kind, "arrangement": method.arrangement} if is_ours else {}
        inner = InnerStepConfig(lr=INNER_LR, parameters=method.moved)
        self.step = WeightedStep(
            FeatureModel(model),
            net,
            objective=ContrastiveObjective(ContrastiveConfig(margin=0.2)),
            weighting_config=WeightingConfig(kind="uniform" if method.kind == "plain" else "learned"),
            meta=MetaConfig(inner=inner, tangent_share=method.tangent_share, **options),
            weight_optimizer=torch.optim.SGD(net.parameters(), lr=0.0),  # phi stays, so rounds are alike
            autocast=(lambda: torch.autocast(device, torch.bfloat16)) if has_bf16 else nullcontext,
        )

    def __call__(self) -> None:
        own: dict[str, Callable[[], None]] = {"published": self._published, "difference": self._difference}
        if self.method.kind in own:
            own[self.method.kind]()
        else:
            self.step.compute_gradients(self.batch, None if self.method.kind == "plain" else self.meta_batch)

    def hypergradient(self) -> Tensor:
        """Take a step and return phi's gradient as one vector."""
        self()
        return torch.cat([parameter.grad.flatten() for parameter in self.step.weighting.parameters()])

    def _published(self) -> None:
        """The second-order graph through theta' (Meta-Weight-Net, and what the MAMA release intends).

        The real step's gradient is the one in the graph. Fused attention has no double backward.
        """
        step, parameters = self.step, list(self.step.parameters.values())
        with sdpa_kernel(SDPBackend.MATH):
            losses = step._functional_losses(step.parameters, self.batch)
            weights = compute_sample_weights(step.weighting, losses.detach(), "sum_global")
            gradients = torch.autograd.grad((weights * losses).sum(), parameters, create_graph=True)
            ahead = {n: v - INNER_LR * g for (n, v), g in zip(step.parameters.items(), gradients, strict=True)}
            meta_loss = step._functional_losses(ahead, self.meta_batch).mean()
            self._set(torch.autograd.grad(meta_loss, list(step.weighting.parameters())), gradients)

    def _difference(self) -> None:
        """SAMA's central difference with an SGD base step, whose gradient is the real step's.

        Two more passes over the training batch at theta +- eps v, eps = 0.01 / |v|, each with a graph as in Betty,
        whose gradient in phi is taken. Weights are those of the unperturbed losses here, or the difference would also
        move the weight net's input, which the target holds fixed.
        """
        step, parameters = self.step, self.step.parameters
        losses = step._functional_losses(parameters, self.batch)
        weights = compute_sample_weights(step.weighting, losses.detach(), "sum_global")
        gradients = torch.autograd.grad((weights.detach() * losses).sum(), list(parameters.values()))
        del losses
        ahead = {n: (v - INNER_LR * g).detach() for (n, v), g in zip(parameters.items(), gradients, strict=True)}
        ahead = {name: value.requires_grad_() for name, value in ahead.items()}
        meta_loss = step._functional_losses(ahead, self.meta_batch).mean()
        direction = dict(zip(parameters, torch.autograd.grad(meta_loss, list(ahead.values())), strict=True))
        epsilon = DIFFERENCE_RADIUS / norm_of(direction)
        sides = []
        for sign in (1, -1):
            moved = {n: (v.detach() + sign * epsilon * direction[n]).requires_grad_() for n, v in parameters.items()}
            weighted = (weights * step._functional_losses(moved, self.batch)).sum()
            sides.append(torch.autograd.grad(weighted, list(step.weighting.parameters()), retain_graph=sign > 0))
        slopes = [-INNER_LR * (ahead - behind) / (2 * epsilon) for ahead, behind in zip(*sides, strict=True)]
        self._set(slopes, gradients)

    def _set(self, hypergradient, gradients) -> None:
        for parameter, gradient in zip(self.step.weighting.parameters(), hypergradient, strict=True):
            parameter.grad = gradient
        for parameter, gradient in zip(self.step.parameters.values(), gradients, strict=True):
            parameter.grad = gradient.detach()


def fill_factors(model: ClipVip) -> None:
    """Give all factors of adapters random values."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_factor(name):
                parameter.normal_(std=0.02)


def make_batch(model: ClipVip, size: int, device: str) -> ClipBatch:
    """Random clips and texts of at most 24 tokens."""
    config = model.config
    shape = (size, config.num_frames, config.image_size, config.image_size, 3)
    tokens = torch.randint(1, config.vocab_size - 1, (size, min(config.context_length, 24)))
    tokens[:, -1] = config.vocab_size - 1
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    return ClipBatch(frames, tokens, torch.arange(size), torch.ones(size, dtype=torch.bool)).to(device)
