"""Both steps of one size, ready to be called again and again on one batch, and the check that they are the same."""

from collections.abc import Callable
from contextlib import nullcontext

import torch

from mama_ray.data.batch import ClipBatch
from mama_ray.models.clip_vip.key_layouts import NEW_KEYS
from mama_ray.models.clip_vip.model import ClipVip, ClipVipConfig
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.loop import train_step
from mama_ray.training.settings import OptimConfig
from mama_ray.training.state import TrainState, build_state
from mama_ray.weighting.settings import MetaConfig, WeightingConfig

from .peer import PeerStep, build_peer, images_of, under_our_names

TOLERANCE = {torch.float64: 1e-9, torch.float32: 5e-5}  # of each parameter's gradient, over its norm
OPTIM = OptimConfig(lr=1e-5)


def build_ours(config: ClipVipConfig, device: str, dtype: torch.dtype, autocast: Callable = nullcontext) -> TrainState:
    """Build the state of a plain run: InfoNCE, the mean of both directions, every sample of weight one."""
    torch.manual_seed(0)
    return build_state(
        ClipVip(config).to(device, dtype),
        objective=ContrastiveConfig(margin=0.0, direction_reduction="mean"),
        weighting=WeightingConfig(kind="uniform"),
        meta=MetaConfig(),
        optim=OPTIM,
        num_steps=10**6,
        global_batch_size=10**6,
        autocast=autocast,
    )


def random_batch(config: ClipVipConfig, size: int, device: str) -> ClipBatch:
    """Return random clips with texts of random lengths, padded to the context, as both models take them."""
    made = torch.Generator().manual_seed(0)
    shape = (size, config.num_frames, config.image_size, config.image_size, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=made)
    tokens = torch.randint(1, config.vocab_size - 1, (size, config.context_length), generator=made)
    ends = torch.randint(config.context_length // 4, config.context_length, (size,), generator=made)
    places = torch.arange(config.context_length)[None]
    tokens = torch.where(places < ends[:, None], tokens, torch.where(places == ends[:, None], config.vocab_size - 1, 0))
    return ClipBatch(frames, tokens, torch.arange(size), torch.ones(size, dtype=torch.bool)).to(device)


def check_same(config: ClipVipConfig, size: int, dtype: torch.dtype) -> dict[str, float]:
    """Give both the same weights and return how far loss and gradients are apart; raises where they are not the same.

    The config has one frame and one proxy: CLIP.
    """
    torch.set_default_dtype(dtype)  # of our constants of pixels, too
    state, peer = build_ours(config, "cpu", dtype), build_peer(config)
    torch.set_default_dtype(torch.float32)
    # What an image tower does not have: no proxies beside the class token, and a place in time that changes nothing.
    own = {name: torch.zeros_like(value) for name, value in state.model.state_dict().items() if name in NEW_KEYS}
    state.model.load_state_dict(under_our_names(peer.state_dict()) | own)
    batch = random_batch(config, size, "cpu")
    result = state.weighted_step.compute_gradients(batch, None)
    step = PeerStep(peer, OPTIM)
    loss = step.compute_gradients(images_of(batch, config, dtype), batch.token_ids, 1)
    wanted = under_our_names({name: one.grad for name, one in peer.named_parameters()})
    ours = {name: one.grad for name, one in state.model.named_parameters()}
    # The bias of keys moves all scores of a query alike: its gradient is rounding in both.
    told = [name for name in wanted if not name.endswith("k_proj.bias")]
    apart = {name: float((ours[name] - wanted[name]).norm() / wanted[name].norm()) for name in told}
    found = {"loss": float(abs(result.losses.mean() - loss) / loss), "gradient": max(apart.values())}
    assert max(found.values()) < TOLERANCE[dtype], (found, max(apart, key=apart.__getitem__))
    return found


def with_frames(config: ClipVipConfig, num_frames: int) -> ClipVipConfig:
    """Return the size for clips of so many frames; with one it is CLIP, without proxies beside the class token."""
    more = {"num_proxies": 1} if num_frames == 1 else {}
    return config.model_copy(update={"num_frames": num_frames, **more})


def build_steps(
    config: ClipVipConfig, size: int, device: str, autocast: Callable = nullcontext
) -> tuple[dict[str, Callable[[], object]], dict[str, Callable[[], object]]]:
    """Bind both to one batch: whole steps (gradients, clipping, the optimiser's update), and the gradients alone."""
    state = build_ours(config, device, torch.float32, autocast)
    peer = PeerStep(build_peer(config).to(device), OPTIM, autocast)
    batch = random_batch(config, size, device)
    images = images_of(batch, config)
    steps = {
        "ours": lambda: train_step(state, batch, None),
        "open_clip": lambda: peer(images, batch.token_ids, config.num_frames),
    }
    gradients = {
        "ours": lambda: state.weighted_step.compute_gradients(batch, None),
        "open_clip": lambda: peer.compute_gradients(images, batch.token_ids, config.num_frames),
    }
    return steps, gradients
