"""The chunked loss against a naive double loop and the whole one: values, all kinds of derivatives, memory by count."""

import itertools
import math
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mama_ray.objectives.contrastive import compute_contrastive_losses
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.weighting.hypergradient import directional_derivatives
from tests.objectives.test_contrastive import naive_losses, unit_features
from tests.weighting.toys import ToyEncoder, build_step, random_batch, random_weight_net, weight_gradients

EXACT = {"rtol": 1e-12, "atol": 1e-12}
BATCH = 7
CHUNK_SIZES = (1, 3, 6)  # none of the larger ones divides the batch
INVALID = torch.tensor([True, True, False, False, False, True, True])  # at a size of 3 no negative is in chunk 1, row 5
RULES = [
    {"margin": margin, "obtuse_positives": obtuse, "close_negatives": close}
    for margin, obtuse, close in itertools.product(
        (0.3, 0.0, -0.2), ("acute_only", "always"), ("untouched", "close_too")
    )
    if margin >= 0 or close == "untouched"
]


def inputs(seed: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Unit features with an obtuse positive pair, a negative closer than any margin, and a scale in log form."""
    video, text = unit_features(seed, batch=BATCH)
    text[1] = F.normalize(video[2] + 0.05, dim=-1)
    text[4] = -text[4]
    return video, text, torch.tensor(math.log(10.0), dtype=torch.float64)


def directions() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(9)
    return tuple(torch.randn(value.shape, generator=generator, dtype=value.dtype) for value in inputs())


def losses_of(values: tuple[Tensor, ...], chunk_size: int, valid: Tensor | None, **rules) -> Tensor:
    return compute_contrastive_losses(*values, ContrastiveConfig(chunk_size=chunk_size, **rules), valid=valid)


def gradients_of(values: tuple[Tensor, ...], chunk_size: int, valid: Tensor | None, **rules) -> tuple[Tensor, ...]:
    """Gradients of a sum in which every sample has a weight of its own, with their graph."""
    losses = losses_of(values, chunk_size, valid, **rules)
    weights = torch.arange(1.0, len(losses) + 1, dtype=losses.dtype)
    return torch.autograd.grad((weights * losses).sum(), values, create_graph=True)


def leaves() -> tuple[Tensor, ...]:
    return tuple(value.requires_grad_() for value in inputs())


def derivatives_of_gradients(chunk_size: int, valid: Tensor | None, **rules) -> tuple[Tensor, ...]:
    values = leaves()
    gradients = gradients_of(values, chunk_size, valid, **rules)
    inner = sum((gradient * way).sum() for gradient, way in zip(gradients, directions(), strict=True))
    return torch.autograd.grad(inner, values)


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
@pytest.mark.parametrize("rules", RULES, ids=lambda rules: "-".join(map(str, rules.values())))
def test_chunked_losses_equal_a_naive_double_loop(rules, chunk_size):
    video, text, log_scale = inputs()
    losses = losses_of((video, text, log_scale), chunk_size, None, **rules)
    assert losses.tolist() == pytest.approx(naive_losses(video, text, 10.0, *rules.values()), rel=1e-9)


@pytest.mark.parametrize("valid", [None, INVALID], ids=["all valid", "some invalid"])
@pytest.mark.parametrize("rules", RULES, ids=lambda rules: "-".join(map(str, rules.values())))
class TestChunkedEqualsWhole:
    def test_losses_and_gradients(self, rules, valid):
        whole, gradients = losses_of(leaves(), 0, valid, **rules), gradients_of(leaves(), 0, valid, **rules)
        for chunk_size in CHUNK_SIZES:
            torch.testing.assert_close(losses_of(leaves(), chunk_size, valid, **rules), whole, **EXACT)
            torch.testing.assert_close(gradients_of(leaves(), chunk_size, valid, **rules), gradients, **EXACT)

    @pytest.mark.parametrize("records_a_graph", [False, True])
    def test_tangents_in_forward_mode(self, rules, valid, records_a_graph):
        def tangent(chunk_size: int) -> Tensor:
            with torch.set_grad_enabled(records_a_graph), forward_ad.dual_level():
                duals = tuple(map(forward_ad.make_dual, leaves() if records_a_graph else inputs(), directions()))
                return forward_ad.unpack_dual(losses_of(duals, chunk_size, valid, **rules)).tangent.detach().clone()

        for chunk_size in CHUNK_SIZES:
            torch.testing.assert_close(tangent(chunk_size), tangent(0), **EXACT)

    def test_gradients_of_gradients(self, rules, valid):
        whole = derivatives_of_gradients(0, valid, **rules)
        for chunk_size in CHUNK_SIZES:
            torch.testing.assert_close(derivatives_of_gradients(chunk_size, valid, **rules), whole, **EXACT)

    def test_tangents_of_gradients(self, rules, valid):
        whole = derivatives_of_gradients(0, valid, **rules)  # a Hessian is symmetric
        for chunk_size in CHUNK_SIZES:
            with forward_ad.dual_level():
                duals = tuple(map(forward_ad.make_dual, leaves(), directions()))
                gradients = gradients_of(duals, chunk_size, valid, **rules)
                tangents = tuple(forward_ad.unpack_dual(gradient).tangent.detach().clone() for gradient in gradients)
            torch.testing.assert_close(tangents, whole, **EXACT)


@pytest.mark.parametrize("method", ["forward_mode", "second_order"])
def test_directional_derivatives_through_a_model_do_not_depend_on_the_chunk(method):
    batch = random_batch(0, 8)
    batch.valid[[2, 3]] = False

    def derivatives(chunk_size: int, method: str) -> Tensor:
        step = build_step_with(chunk_size)
        generator = torch.Generator().manual_seed(1)
        direction = {
            name: torch.randn(value.shape, generator=generator, dtype=value.dtype)
            for name, value in step.parameters.items()
        }
        return directional_derivatives(
            lambda parameters: step._functional_losses(parameters, batch), step.parameters, direction, method
        )

    torch.testing.assert_close(derivatives(3, method), derivatives(0, "second_order"), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
def test_weight_nets_hypergradient_does_not_depend_on_the_chunk(arrangement):
    def gradients(chunk_size: int) -> list[Tensor]:
        return weight_gradients(
            build_step_with(chunk_size, arrangement=arrangement), random_batch(0, 8), random_batch(1, 5)
        )

    torch.testing.assert_close(gradients(3), gradients(0), rtol=1e-10, atol=1e-12)


def build_step_with(chunk_size: int, **meta):
    objective = ContrastiveConfig(margin=0.2, chunk_size=chunk_size)
    return build_step(ToyEncoder(), random_weight_net(), objective=objective, **meta)


def test_rounding_makes_no_chunked_loss_negative():
    video = F.normalize(torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    losses = compute_contrastive_losses(
        video, video.clone(), torch.tensor(math.log(200.0)), ContrastiveConfig(margin=0.0, chunk_size=10)
    )
    assert losses.dtype == torch.float32
    assert (losses >= 0).all() and (losses < 1e-3).any()


def test_a_chunk_that_holds_the_whole_batch_changes_no_bit():
    assert torch.equal(losses_of(inputs(), BATCH, INVALID, margin=0.2), losses_of(inputs(), 0, INVALID, margin=0.2))


class Ledger(TorchDispatchMode):
    """Counts the elements of every tensor that is made, and of all those that are alive at a time."""

    def __init__(self):
        super().__init__()
        self.largest = self.most_alive = self._alive = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._enter(tensor)
        return found

    def _enter(self, tensor: Tensor) -> None:
        self.largest = max(self.largest, tensor.numel())
        storage = tensor.untyped_storage()
        if storage._cdata in self._known:
            return
        num_elements = storage.nbytes() // tensor.element_size()
        self._known.add(storage._cdata)
        self._alive += num_elements
        self.most_alive = max(self.most_alive, self._alive)
        weakref.finalize(storage, self._leave, storage._cdata, num_elements)

    def _leave(self, key: int, num_elements: int) -> None:
        self._known.discard(key)
        self._alive -= num_elements


def counted(mode: str, size: int, chunk_size: int) -> Ledger:
    video, text = unit_features(0, batch=size, dim=4)
    config = ContrastiveConfig(margin=0.2, close_negatives="close_too", chunk_size=chunk_size)
    log_scale = torch.tensor(math.log(10.0), dtype=torch.float64)
    valid = torch.arange(size) % 5 != 0
    if mode == "forward and backward":
        values = tuple(value.requires_grad_() for value in (video, text, log_scale))
        with Ledger() as ledger:
            losses = compute_contrastive_losses(*values, config, valid=valid)
            torch.autograd.grad(losses.sum(), values)
    else:
        with torch.no_grad(), forward_ad.dual_level():
            duals = [forward_ad.make_dual(value, torch.ones_like(value)) for value in (video, text, log_scale)]
            with Ledger() as ledger:
                compute_contrastive_losses(*duals, config, valid=valid)
    return ledger


@pytest.mark.parametrize("mode", ["forward and backward", "directional"])
def test_memory_follows_the_chunk_and_not_the_batch(mode):
    size, chunk_size = 256, 32
    chunked, whole = counted(mode, size, chunk_size), counted(mode, size, 0)
    assert chunked.largest <= size * chunk_size
    assert whole.largest >= size * size
    # Alive at once: a few temporaries of a chunk, and per sample a few features, losses and logits of chunks.
    assert chunked.most_alive <= 24 * size * chunk_size
    assert whole.most_alive > 24 * size * chunk_size
