"""What must hold on the device: every check gives an error and the bound that it must keep."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.gpu.rows import Row, check
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.steps import bf16, build_case, build_model, build_training
from benchmarks.gpu.timing import free_memory
from benchmarks.meta_step_cases.cases import Method, make_batch
from mama_ray.objectives.contrastive import compute_contrastive_losses
from mama_ray.objectives.settings import ContrastiveConfig

# (method, arrangement, precision): bound. float32 rounds by 6e-8; a one-sided difference adds its curvature, 0.1 to 2 %
# (docs/meta_step.md). bf16 rounds by 4e-3, and the losses of a model just initialised differ little between clips.
FULL, HALF = (torch.float32, False), (torch.float32, True)
HYPERGRADIENTS = {
    ("forward_mode", "shared", (torch.float64, False)): 1e-9,
    ("forward_mode", "shared", FULL): 1e-3,
    ("forward_mode", "faithful", FULL): 1e-3,
    ("finite_difference", "shared", FULL): 5e-2,
    ("forward_mode", "shared", HALF): 0.15,
    ("forward_mode", "faithful", HALF): 0.15,
    ("published", "faithful", HALF): 0.15,
}
PRECISIONS = {(torch.float64, False): "float64", FULL: "float32", HALF: "bf16"}
FEATURES_BOUND, LOSS_BOUND, GRADIENT_BOUND = 3e-2, 3e-2, 0.15
# The kernels of a GPU add in an order that differs from run to run.
SAME = 1e-3


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """Return |ours - reference| / |reference|."""
    ours, reference = ours.detach().double().cpu(), reference.detach().double().cpu()
    return float((ours - reference).norm() / reference.norm())


def hypergradient(setting: Setting, name: str) -> Iterator[Row]:
    """Compare the weight net's gradient with that of the second-order graph in float64, on the device itself."""

    def gradient(kind: str, arrangement: str, precision: tuple[torch.dtype, bool]) -> Tensor:
        dtype, has_bf16 = precision
        method = Method(kind, arrangement, 0.5)
        case = build_case(name, method, setting.check_batch, setting.device, dtype=dtype, has_bf16=has_bf16)
        found = case.hypergradient().double().cpu()
        del case
        free_memory()
        return found

    reference = gradient("published", "faithful", (torch.float64, False))
    note = f"over the second order in float64, of norm {float(reference.norm()):.2g}"
    for (kind, arrangement, precision), bound in HYPERGRADIENTS.items():
        words = f"{Method(kind, arrangement).name}, {PRECISIONS[precision]}"
        error = relative_error(gradient(kind, arrangement, precision), reference)
        yield check(f"hypergradient, {words}", error, bound, note)


def ddp(setting: Setting, name: str) -> Iterator[Row]:
    """Take a meta step inside DDP on one rank and compare its gradients with the bare model's."""
    backend = "nccl" if setting.is_gpu else "gloo"
    alone = _gradients_of_a_meta_step(setting, name)
    free_memory()
    with _one_rank(backend):
        total = torch.arange(5.0, device=setting.device)
        dist.all_reduce(total)
        yield check(f"{backend}: sum over one rank", relative_error(total, torch.arange(5.0)), 0.0)
        wrapped = _gradients_of_a_meta_step(setting, name)
    for part, ours in wrapped.items():
        yield check(f"DDP over {backend}: {part}", relative_error(ours, alone[part]), SAME, "over the bare model's")


@contextmanager
def _one_rank(backend: str) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(backend, init_method=f"file://{folder}/ranks", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def _gradients_of_a_meta_step(setting: Setting, name: str) -> dict[str, Tensor]:
    state = build_training(name, setting.device, kind="learned", has_bf16=False)
    torch.manual_seed(1)
    batch = make_batch(state.model, setting.check_batch, setting.device)
    state.weighted_step.compute_gradients(batch, batch[: setting.check_batch // 2])
    parameters = {"gradient of the model": state.model, "hypergradient": state.weighting}
    return {
        part: torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]).cpu()
        for part, module in parameters.items()
    }


def autocast(setting: Setting, name: str) -> Iterator[Row]:
    """Compare features, losses and gradients under bf16 autocast with float32."""
    model = build_model(name, setting.device)
    batch = make_batch(model, setting.check_batch, setting.device)
    found = {}
    for precision, context in (("float32", nullcontext), ("bf16", bf16(setting.device))):
        model.zero_grad(set_to_none=True)
        with context():
            video, text = model(batch.frames, batch.token_ids)
        losses = compute_contrastive_losses(video, text, model.logit_scale, ContrastiveConfig(margin=0.2))
        losses.mean().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found[precision] = {"video features": video, "text features": text, "losses": losses, "gradient": gradient}
        yield check(f"unit norm of features, {precision}", float((video.detach().norm(dim=1) - 1).abs().max()), 1e-5)
    bounds = dict(zip(found["bf16"], (FEATURES_BOUND, FEATURES_BOUND, LOSS_BOUND, GRADIENT_BOUND), strict=True))
    for part, bound in bounds.items():
        error = relative_error(found["bf16"][part], found["float32"][part])
        yield check(f"{part}, bf16 autocast", error, bound, "over float32")
