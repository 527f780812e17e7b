"""Everything a training step changes, in one place: what a checkpoint must hold and nothing else."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mama_ray.errors import UserError
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.models.heads.classes import ClassHeads
from mama_ray.models.heads.head import AnswerHead
from mama_ray.models.stacks import levels_below_top
from mama_ray.models.trained_part import freeze_answering_parts
from mama_ray.objectives.objective import ContrastiveObjective, NoContrast, Objective, TrainingObjective
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.optim import build_optimizer, describe_groups, give_own_rate
from mama_ray.training.settings import OptimConfig
from mama_ray.weighting.class_model import ClassModel
from mama_ray.weighting.dials import Dials, build_dials
from mama_ray.weighting.features import Autocast, FeatureModel, unwrap
from mama_ray.weighting.question_model import QuestionModel
from mama_ray.weighting.settings import MetaConfig, WeightingConfig
from mama_ray.weighting.step import WeightedStep
from mama_ray.weighting.weight_net import build_weighting

Head = AnswerHead | ClassHeads


@dataclass
class TrainState:
    """The model, the weighting, their optimisers and the position in the run."""

    model: DualEncoder
    weighting: nn.Module
    optimizer: torch.optim.Optimizer
    weight_optimizer: torch.optim.Optimizer | None
    weighted_step: WeightedStep
    optim: OptimConfig
    num_steps: int
    global_batch_size: int
    step: int = 0
    ema: AveragedModel | None = None
    head_ema: AveragedModel | None = None

    @property
    def samples_seen(self) -> int:
        """The data cursor: global batch t is rows [t * G, (t + 1) * G) of the epoch plan."""
        return self.step * self.global_batch_size

    @property
    def feature_model(self) -> FeatureModel:
        """The model as steps run it, with what it has beside the model's own parameters."""
        return unwrap(self.weighted_step.model)

    @property
    def head(self) -> Head | None:
        """The head that answers questions, where the model does not answer by itself, or that tells classes."""
        runs = self.feature_model
        return runs.head if isinstance(runs, QuestionModel | ClassModel) else None

    @property
    def evaluated_model(self) -> DualEncoder:
        """The averaged model where averaging is on, else the model itself."""
        return self.model if self.ema is None else self.ema.module

    @property
    def evaluated_head(self) -> Head | None:
        """The head of it."""
        return self.head if self.head_ema is None else self.head_ema.module


def build_state(
    model: DualEncoder,
    *,
    objective: ContrastiveConfig | None,
    weighting: WeightingConfig,
    meta: MetaConfig,
    optim: OptimConfig,
    num_steps: int,
    global_batch_size: int,
    num_micro_batches: int = 1,
    autocast: Autocast = nullcontext,
    seed: int = 0,
    task: Objective | None = None,
    eta: float = 1.0,
    head: Head | None = None,
    head_lr_scale: float = 1.0,
    num_samples: int | None = None,
) -> TrainState:
    """Bind a model to its optimiser and weighting; wraps it in DDP inside a process group.

    The model lies on its device already, and so does its `head`, where it has one. The weight net starts from `seed`
    on every rank alike, in float32; dropout draws by it. With a `task` the loss is contrastive_i + eta * task_i, or
    without an `objective` the task alone, and the model answers: by its head, whose learning rate is `head_lr_scale`
    times the model's (in the lookahead, too), or by itself; with a head of classes it tells these. Where it does not
    answer by itself, what it has for that is frozen. Rows of batches are below `num_samples`, which a weighting asks
    for that sees average_loss.
    """
    _refuse_shared_batch_norm(model)
    weighting_module, dials = _build_learned(weighting, meta, objective, seed, next(model.parameters()).device)
    weight_optimizer = _weight_optimizer(weighting_module, meta)
    inner = _feature_model(model, head, objective, answers=task is not None)
    optimizer = _build_optimizer(inner, optim, head, head_lr_scale)
    step = WeightedStep(
        _wrapped(inner, has_idle=objective is None),
        weighting_module,
        objective=TrainingObjective(_contrastive(objective), task, eta),
        weighting_config=weighting,
        meta=meta,
        optimizer=optimizer,
        weight_optimizer=weight_optimizer,
        num_micro_batches=num_micro_batches,
        autocast=autocast,
        seed=seed,
        num_samples=num_samples,
        dials=dials,
    )
    state = TrainState(model, weighting_module, optimizer, weight_optimizer, step, optim, num_steps, global_batch_size)
    _keep_averages(state, head)
    return state


def _build_learned(
    weighting: WeightingConfig, meta: MetaConfig, objective: ContrastiveConfig | None, seed: int, device: torch.device
) -> tuple[nn.Module, Dials | None]:
    """Make what is learned beside the model, from the seed; the weight net is the same with dials as without."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_weighting(weighting).to(device), build_dials(meta, objective, weighting, device)


def _contrastive(config: ContrastiveConfig | None) -> Objective:
    return NoContrast() if config is None else ContrastiveObjective(config)


def _weight_optimizer(weighting: nn.Module, meta: MetaConfig) -> torch.optim.Optimizer | None:
    parameters = list(weighting.parameters())
    if not parameters:
        return None
    # torch's AdamW makes every state that it loads its own. This one goes on as the checkpoint says: with decay that
    # is part of the gradient where a run began so.
    return torch.optim.Adam(parameters, lr=meta.lr, weight_decay=meta.weight_decay, decoupled_weight_decay=True)


def _wrapped(feature_model: FeatureModel, *, has_idle: bool) -> nn.Module:
    """The model as steps run it: inside DDP where there is a process group.

    has_idle: without the contrast, what is there for it alone is read by no loss.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # Buffers that move are running statistics, which the step shares.
        return DistributedDataParallel(
            feature_model, gradient_as_bucket_view=True, forward_sync_buffers=False, find_unused_parameters=has_idle
        )
    return feature_model


def _build_optimizer(
    feature_model: FeatureModel, optim: OptimConfig, head: Head | None, head_lr_scale: float
) -> torch.optim.Optimizer:
    levels = None
    if optim.layer_decay < 1:
        levels = {f"model.{name}": level for name, level in levels_below_top(feature_model.model).items()}
    optimizer = build_optimizer(feature_model, optim, levels)
    if head is not None and head_lr_scale != 1.0:
        give_own_rate(optimizer, head.parameters(), head_lr_scale)
    return optimizer


def describe_trained(state: TrainState) -> str:
    """Tell how much of the model is trained, at which shares of the learning rate."""
    trained = sum(parameter.numel() for parameter in state.weighted_step.parameters.values())
    total = sum(parameter.numel() for parameter in state.feature_model.parameters())
    return f"{trained:,} of {total:,} weights are trained: {describe_groups(state.optimizer)}"


def _feature_model(
    model: DualEncoder, head: Head | None, objective: ContrastiveConfig | None, *, answers: bool
) -> FeatureModel:
    if head is not None or not answers:
        freeze_answering_parts(model)
    bias = objective.logit_bias if objective is not None and objective.loss == "sigmoid" else None
    if isinstance(head, ClassHeads):
        return ClassModel(model, head, has_contrast=objective is not None, logit_bias=bias)
    return QuestionModel(model, head, logit_bias=bias) if answers else FeatureModel(model, logit_bias=bias)


def _keep_averages(state: TrainState, head: Head | None) -> None:
    if state.optim.ema_decay > 0:
        average = get_ema_multi_avg_fn(state.optim.ema_decay)
        state.ema = AveragedModel(state.model, multi_avg_fn=average)
        state.head_ema = None if head is None else AveragedModel(head, multi_avg_fn=average)


def _refuse_shared_batch_norm(model: DualEncoder) -> None:
    """Its collectives carry no tangents, which the directional pass needs."""
    for name, module in model.named_modules():
        if isinstance(module, nn.SyncBatchNorm):
            raise UserError(
                f"normalisation in {name} is shared by the workers",
                got="SyncBatchNorm",
                wanted="nn.BatchNorm",
                remedy="let each worker normalise its own clips: their running statistics are averaged",
            )


def require_finite(name: str, value: float, step: int) -> None:
    """Stop a run whose loss or gradient is no longer a number; `value` is the mean of steps up to `step`."""
    if not math.isfinite(value):
        raise UserError(
            f"{name} at step {step}",
            got=value,
            wanted="a finite number",
            remedy="start under another --run with a lower optim.lr, a lower optim.clip_norm (0 is none at all) or a "
            "longer optim.warmup_share",
        )


def require_valid_clips(num_valid: Sequence[float], last_step: int) -> None:
    """Stop a run that has learned from nothing: a global batch of which no clip could be used.

    num_valid: usable clips of the steps up to `last_step`. A step with none has loss 0 and moves the model by its
    momentum alone, so it must come into no checkpoint.
    """
    for number, count in enumerate(num_valid):
        if not count:
            raise UserError(
                "no clip of a whole batch can be used",
                got=f"none at step {last_step - len(num_valid) + 1 + number}",
                wanted="at least one that can be read and decoded",
                remedy="see the warnings above, repair or restore the shards, then start again with the same "
                "arguments: the run goes on from its last checkpoint",
            )
