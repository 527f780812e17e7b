"""A training step as jobs take it, ready to be called again and again on one batch of random clips."""

from collections.abc import Callable
from contextlib import nullcontext

import torch

from benchmarks.meta_step_cases.cases import Case, Method, make_batch
from mama_ray.models.clip_vip.model import ClipVip
from mama_ray.models.pretrained import preset
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.loop import train_step
from mama_ray.training.settings import OptimConfig
from mama_ray.training.state import TrainState, build_state
from mama_ray.weighting.features import unwrap
from mama_ray.weighting.settings import MetaConfig, WeightingConfig

# At CLIP's own 4.6 a margin of 0.2 leaves a fresh model no loss at all: nothing to compare, and products of zeros,
# which a chip does faster.
LOG_SCALE = 2.0


def build_model(name: str, device: str) -> ClipVip:
    """Build a preset with the weights of seed 0 and a logit scale that leaves it something to learn."""
    torch.manual_seed(0)
    model = ClipVip(preset(name)).to(device)
    lower_logit_scale(model)
    return model


def lower_logit_scale(model: ClipVip) -> None:
    """Set the logit scale, in place, to one at which losses and gradients of random weights are far from 0."""
    with torch.no_grad():
        model.logit_scale.fill_(LOG_SCALE)


def build_case(name: str, method: Method, batch_size: int, device: str, **precision) -> Case:
    """Build a way to take a step on a preset with such a logit scale."""
    case = Case(method, preset_name=name, batch_size=batch_size, device=device, **precision)
    lower_logit_scale(unwrap(case.step.model).model)
    return case


def bf16(device: str) -> Callable:
    """Return what makes the contexts of bf16 autocast on a device."""
    return lambda: torch.autocast(device, torch.bfloat16)


def build_training(name: str, device: str, *, kind: str = "uniform", has_bf16: bool = True) -> TrainState:
    """Build the state of a run: plain InfoNCE steps for `uniform`, meta steps for `learned`."""
    return build_state(
        build_model(name, device),
        objective=ContrastiveConfig(margin=0.2),
        weighting=WeightingConfig(kind=kind),
        meta=MetaConfig(),
        optim=OptimConfig(),
        num_steps=10**6,
        global_batch_size=10**6,
        autocast=bf16(device) if has_bf16 else nullcontext,
    )


def training_step(state: TrainState, batch_size: int, device: str) -> Callable[[], object]:
    """Bind a state to a batch: gradients, clipping and the optimiser's update in one call."""
    batch = make_batch(state.model, batch_size, device)
    return lambda: train_step(state, batch, None)
