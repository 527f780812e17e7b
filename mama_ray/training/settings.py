"""How the model learns; without torch, as a command line names it."""

from pydantic import Field

from mama_ray.config import AddedLater, Config


class OptimConfig(Config):
    """AdamW with linear warm-up and cosine decay."""

    lr: float = Field(1e-3, gt=0.0)
    """Peak learning rate."""

    layer_decay: AddedLater[float] = Field(1.0, gt=0.0, le=1.0)
    """Factor of the learning rate from each layer of a tower to the one below it (layer-wise decay): what comes after
    the last layer has lr, the last layer layer_decay times lr, embeddings the least. 1 is one rate for all. The
    lookahead's rates have the same factors."""

    weight_decay: float = Field(0.05, ge=0.0)
    """Decoupled weight decay of matrices; biases, norms and the logit scale have none."""

    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's moment decay rates."""

    warmup_share: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the steps over which the learning rate rises linearly."""

    final_lr_share: float = Field(0.0, ge=0.0, le=1.0)
    """Learning rate at the end as a share of the peak."""

    clip_norm: float = Field(1.0, ge=0.0)
    """Gradients are scaled to at most this norm; 0 turns clipping off. The lookahead is never clipped."""

    ema_decay: float = Field(0.0, ge=0.0, lt=1.0)
    """Decay of the moving average of the parameters that is evaluated and saved beside them; 0 turns it off."""
