"""How the model learns; without torch, as a command line names it."""

from typing import Annotated, Literal

from pydantic import Field

from mama_ray.config import AddedLater, Config, Location
from mama_ray.data.questions.plan import QuestionPlanConfig
from mama_ray.models.heads.settings import ClassHeadConfig, HeadConfig

DecayRate = Annotated[float, Field(ge=0.0, lt=1.0)]


class OptimConfig(Config):
    """AdamW or SGD with linear warm-up and cosine decay."""

    optimizer: AddedLater[Literal["adamw", "sgd"]] = "adamw"
    """AdamW, or SGD with momentum, whose weight decay is added to the gradient."""

    momentum: AddedLater[float] = Field(0.9, ge=0.0, lt=1.0)
    """SGD's momentum."""

    lr: float = Field(1e-3, gt=0.0)
    """Peak learning rate."""

    layer_decay: AddedLater[float] = Field(1.0, gt=0.0, le=1.0)
    """Factor of the learning rate from each layer of a tower to the one below it (layer-wise decay): what comes after
    the last layer has lr, the last layer layer_decay times lr, embeddings the least. 1 is one rate for all. The
    lookahead's rates have the same factors."""

    weight_decay: float = Field(0.05, ge=0.0)
    """Weight decay of matrices, AdamW's decoupled; biases, norms and the logit scale have none."""

    betas: tuple[DecayRate, DecayRate] = (0.9, 0.98)
    """AdamW's moment decay rates."""

    warmup_share: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the steps over which the learning rate rises linearly."""

    final_lr_share: float = Field(0.0, ge=0.0, le=1.0)
    """Learning rate at the end as a share of the peak; 1 is a constant one after the warm-up."""

    clip_norm: float = Field(1.0, ge=0.0)
    """Gradients are scaled to at most this norm; 0 turns clipping off. The lookahead is never clipped."""

    ema_decay: float = Field(0.0, ge=0.0, lt=1.0)
    """Decay of the moving average of the parameters. The average is what is evaluated and what a checkpoint's model
    is; the parameters themselves lie beside it, to go on with. 0 turns it off."""


class TaskConfig(Config):
    """What a model learns beside the contrast."""

    kind: Literal["none", "question_answering", "classification"] = "none"
    """none: retrieval alone; question_answering: samples are (clip, question) pairs, and their loss is contrastive +
    eta * cross-entropy of the answer; classification: the loss is contrastive + eta * the sum of the cross-entropies of
    the clip's classes (data.classes)."""

    eta: float = Field(1.0, ge=0.0)
    """Factor of the task loss; 0 leaves the contrast alone, bit for bit."""

    contrast: AddedLater[bool] = True
    """Whether the contrast is learned beside the task; false learns the answers alone, also of clips that have no
    caption, as NExT-QA's."""

    questions: Location[str | None] = None
    """Questions table (python -m mama_ray.data.questions makes one); null takes the questions of the clips' own
    annotations, which the embedded corpus has."""

    answers: Location[str | None] = None
    """File with the list of answers to open-ended questions; null makes it of the training questions."""

    num_answers: int = Field(1000, ge=1)
    """Answers of a list that is made: the most frequent in training. The others count as wrong."""

    head: HeadConfig = HeadConfig()
    """What gives the answers."""

    class_head: AddedLater[ClassHeadConfig] = ClassHeadConfig()
    """What tells the classes."""

    head_lr_scale: float = Field(1.0, gt=0.0)
    """The head's learning rate as a multiple of optim.lr: a new head on a model that is learned already wants more. The
    lookahead's rate has the same factor."""

    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the target spread evenly over all answers, or over all classes."""

    plan: QuestionPlanConfig = QuestionPlanConfig()
    """How many questions of a clip come together."""
