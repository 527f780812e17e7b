"""The directional pass, with a tape and without: against torch's own forward AD and the second-order graph."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from mama_ray.data.batch import ClipBatch
from mama_ray.models.clip_vip.model import ClipVip, ClipVipConfig
from mama_ray.models.transformer import EncoderConfig
from mama_ray.weighting.directional import directional_pass
from mama_ray.weighting.hypergradient import directional_derivatives
from mama_ray.weighting.step import WeightedStep
from mama_ray.weighting.tape import Tape
from tests.weighting.toys import (
    NUM_TOKENS,
    VOCABULARY,
    build_step,
    random_batch,
    random_weight_net,
    weight_gradients,
)


def small_clip(dtype: torch.dtype = torch.float64, width: int = 8) -> ClipVip:
    tower = EncoderConfig(width=width, num_layers=3, num_heads=2)
    config = ClipVipConfig(
        video=tower,
        text=tower,
        dim=6,
        image_size=2,
        patch_size=1,
        num_frames=2,
        vocab_size=VOCABULARY,
        context_length=NUM_TOKENS,
        place_init_std=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ClipVip(config)
        model.logit_scale.data.fill_(2.0)
    return model.to(dtype)


def random_like(values, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=generator, dtype=value.dtype) for name, value in values.items()}


def slope_of(function, primals: list, tangents: list, tape: Tape | None = None, *, own: bool = True):
    """Value and tangent of a function by the directional pass, or by torch alone."""
    with directional_pass(tape) if own else forward_ad.dual_level(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        duals = [p if t is None else forward_ad.make_dual(p, t) for p, t in zip(primals, tangents, strict=True)]
        value, tangent = forward_ad.unpack_dual(function(*duals))
        return value.clone(), None if tangent is None else tangent.clone()


@pytest.mark.parametrize("frozen", [(), ("vision_model",), ("text_model", "logit_scale"), ("self_attn",), ("mlp",)])
def test_a_tape_gives_the_derivatives_of_the_second_order_graph(frozen):
    model = small_clip()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(part in name for part in frozen))
    step, batch = build_step(model, random_weight_net()), random_batch(1, 6)
    direction, tape = random_like(step.parameters), Tape()

    def loss_fn(values):
        return step._functional_losses(values, batch)

    with tape.record():
        loss_fn(step.parameters)
    exact = directional_derivatives(loss_fn, step.parameters, direction, "second_order")
    without = directional_derivatives(loss_fn, step.parameters, direction, "forward_mode")
    with_tape = directional_derivatives(loss_fn, step.parameters, direction, "forward_mode", tape=tape)
    torch.testing.assert_close(without, exact, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(with_tape, exact, rtol=1e-9, atol=1e-11)
    assert exact.abs().min() > 1e-6


@pytest.mark.parametrize("meta_size", [2, 6])  # a step keeps a tape for the former only
@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
def test_a_step_of_the_real_towers_has_the_second_order_hypergradient(arrangement, meta_size):
    batch, meta_batch = random_batch(1, 6), random_batch(2, meta_size)
    ours, theirs = (
        weight_gradients(
            build_step(small_clip(), random_weight_net(), arrangement=arrangement, hypergradient=method),
            batch,
            meta_batch,
        )
        for method in ("forward_mode", "second_order")
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-13)
        assert mine.abs().max() > 0


NUM_DRAWS = 8
BF16_EPSILON = torch.finfo(torch.bfloat16).eps


@pytest.fixture(scope="module")
def draws() -> tuple[ClipVip, list[tuple[ClipBatch, ClipBatch]]]:
    """A model and pairs of batches, the first of which it has learned: features of a fresh model nearly coincide, and
    bf16 leaves little of their differences. It learns in float64, so it is the same on every processor."""
    model = small_clip(width=32)
    pairs = [(random_batch(number, 32), random_batch(100 + number, 16)) for number in range(NUM_DRAWS)]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for number in range(150):
        build_step(model, random_weight_net()).compute_gradients(pairs[number % NUM_DRAWS][0])
        optimizer.step()
    return model, pairs


def step_like(model: ClipVip, dtype: torch.dtype, method: str, draw: int = 0) -> WeightedStep:
    """A step with a copy of the model; of float32 under bf16 autocast."""
    weighting = random_weight_net(1 + draw).to(dtype)
    step = build_step(copy.deepcopy(model).to(dtype), weighting, hypergradient=method)
    step.autocast = lambda: torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32)
    return step


def mean_errors(compute) -> dict[str, float]:
    """The relative errors of compute(dtype, method, draw) in bf16, averaged over the draws, by method."""
    methods, found = ("forward_mode", "second_order"), []
    for draw in range(NUM_DRAWS):
        exact = compute(torch.float64, "second_order", draw)
        values = [compute(torch.float32, method, draw).double() for method in methods]
        found.append([float((value - exact).norm() / exact.norm()) for value in values])
    return dict(zip(methods, torch.tensor(found).mean(0).tolist(), strict=True))


def test_the_derivatives_of_forward_mode_under_bf16_autocast_err_as_bf16_does(draws):
    """About thirty products and norms follow each other in the two towers; each rounds by up to half an epsilon. With
    signs at random that makes sqrt(30) / 2 or 2.7 epsilon; systematic errors would add up to more."""
    model, pairs = draws

    def compute(dtype, method, draw):
        exact, step = step_like(model, torch.float64, method), step_like(model, dtype, method)
        ahead = exact._functional_losses(exact.parameters, pairs[draw][1]).mean()
        slopes = torch.autograd.grad(ahead, list(exact.parameters.values()))
        direction = {name: slope.to(dtype) for name, slope in zip(exact.parameters, slopes, strict=True)}
        tape = Tape()
        with tape.record():
            step._functional_losses(step.parameters, pairs[draw][0])
        return directional_derivatives(
            lambda values: step._functional_losses(values, pairs[draw][0]),
            step.parameters,
            direction,
            method,
            tape=tape if method == "forward_mode" else None,
        )

    errors = mean_errors(compute)
    assert BF16_EPSILON / 8 < errors["forward_mode"] < 4 * BF16_EPSILON  # the lower bound: not float32 by mistake
    assert errors["forward_mode"] < 1.5 * errors["second_order"]


def test_the_hypergradient_of_forward_mode_under_bf16_autocast_is_as_good_as_that_of_a_double_backward_pass(draws):
    """The sum over clips cancels, so its relative error is larger than theirs, and one draw's may be anything."""
    model, pairs = draws

    def compute(dtype, method, draw):
        gradients = weight_gradients(step_like(model, dtype, method, draw), *pairs[draw])
        return torch.cat([gradient.flatten() for gradient in gradients])

    errors = mean_errors(compute)
    assert BF16_EPSILON / 8 < errors["forward_mode"] < 0.1
    assert errors["forward_mode"] < 1.5 * errors["second_order"]


@pytest.mark.parametrize("with_tangent", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (0, 0, 0)])
@pytest.mark.parametrize("mask", [None, "causal", "boolean", "added"])
def test_attention_has_torchs_value_and_tangent(mask, with_tangent):
    torch.manual_seed(0)
    heads = (2, 3, 5, 4)  # batch, heads, tokens, width of a head
    primals = [torch.randn(heads, dtype=torch.float64) for _ in range(3)]
    tangents = [torch.randn_like(primal) if has else None for primal, has in zip(primals, with_tangent, strict=True)]
    options = {
        None: {},
        "causal": {"is_causal": True},
        "boolean": {"attn_mask": (torch.rand(2, 1, 5, 5) < 0.6) | torch.eye(5, dtype=torch.bool)},
        "added": {"attn_mask": torch.randn(2, 1, 5, 5, dtype=torch.float64), "scale": 0.3},
    }[mask]
    ours, theirs = (
        slope_of(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options), primals, tangents, own=own)
        for own in (True, False)
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("with_tangent", [(1, 1, 1, 1), (0, 0, 0, 1), (1, 0, 0, 1), (0, 0, 1, 1), (1, 1, 1, 0)])
def test_attention_with_a_learned_bias_has_torchs_value_and_tangent(with_tangent):
    torch.manual_seed(0)
    shapes = [(2, 3, 5, 4)] * 3 + [(1, 3, 5, 5)]  # one bias for the whole batch
    primals = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    tangents = [torch.randn_like(primal) if has else None for primal, has in zip(primals, with_tangent, strict=True)]
    ours, theirs = (
        slope_of(lambda q, k, v, bias: F.scaled_dot_product_attention(q, k, v, bias), primals, tangents, own=own)
        for own in (True, False)
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("with_tangent", [(1, 1, 1), (1, 0, 0), (0, 1, 1), (0, 0, 1), (1, 1, 0), (0, 0, 0)])
@pytest.mark.parametrize("function", [lambda x, w, b: F.layer_norm(x, (4,), w, b), F.linear])
def test_layer_norm_and_linear_have_torchs_value_and_tangent(function, with_tangent):
    torch.manual_seed(0)
    shapes = [(3, 5, 4), (4,), (4,)] if function is not F.linear else [(3, 5, 4), (6, 4), (6,)]
    primals = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    tangents = [torch.randn_like(primal) if has else None for primal, has in zip(primals, with_tangent, strict=True)]
    torch.testing.assert_close(slope_of(function, primals, tangents), slope_of(function, primals, tangents, own=False))


@pytest.mark.parametrize("with_tangent", [(1, 1), (1, 0), (0, 1), (0, 0)])
@pytest.mark.parametrize("shapes", [((3, 4), (3, 4)), ((3, 4), (4,)), ((4,), (2, 3, 4)), ((3, 4), ())])
@pytest.mark.parametrize("function", [torch.mul, torch.div, torch.add, torch.sub, lambda x, y: 2 * x / 3 - (1 - y) + 4])
def test_arithmetic_has_torchs_value_and_tangent(function, shapes, with_tangent):
    torch.manual_seed(0)
    primals = [torch.rand(shape, dtype=torch.float64) + 0.5 for shape in shapes]
    tangents = [torch.randn_like(primal) if has else None for primal, has in zip(primals, with_tangent, strict=True)]
    torch.testing.assert_close(slope_of(function, primals, tangents), slope_of(function, primals, tangents, own=False))


class ReadsItsLinears(nn.Module):
    """Every way to use a linear layer's output that could mislead a recording which keeps sums in their place."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        first = self.a(x)
        x = x + first  # kept as the sum, were it not for ...
        x = x * first.tanh()  # ... this
        x = self.b(x) + self.c(x)
        second = self.d(x)
        x = torch.add(x, self.c(x), alpha=2.0)
        third = self.d(x)
        x = third + third
        fourth = self.a(x)
        x = F.normalize(input=fourth + x, dim=-1) + F.normalize(input=fourth, dim=-1)
        listed = torch.cat([second + 1.0, second.sin()], dim=-1)
        return (listed + torch.cat([x, x], dim=-1)).square().sum(-1) + self.a(x).sum(-1) + (self.b(x) + x).prod(-1)


def test_outputs_that_are_read_beside_their_sum_are_kept_themselves():
    torch.manual_seed(0)
    model, inputs = ReadsItsLinears().double(), torch.randn(3, 4, dtype=torch.float64)
    parameters = dict(model.named_parameters())
    direction, tape = random_like(parameters), Tape()

    def function(*values):
        return torch.func.functional_call(model, dict(zip(parameters, values, strict=True)), (inputs,))

    values = [value.detach() for value in parameters.values()]
    with tape.record():
        function(*values)
    ours = slope_of(function, values, list(direction.values()), tape)
    theirs = slope_of(function, values, list(direction.values()), own=False)
    torch.testing.assert_close(ours, theirs)


def test_a_linear_output_changed_in_place_is_refused():
    layer, tape, inputs = nn.Linear(4, 4), Tape(), torch.randn(3, 4)
    with tape.record():
        layer(inputs).relu_()
    with pytest.raises(RuntimeError, match="changed in place"):
        slope_of(layer, [inputs], [None], tape)


def test_a_pass_with_other_linear_layers_than_the_recorded_one_is_refused():
    layer, inputs = nn.Linear(4, 4), torch.randn(3, 4)
    for num_recorded, num_replayed, words in ((1, 2, "more linear layers"), (2, 1, "fewer linear layers")):
        tape = Tape()
        with tape.record():
            for _ in range(num_recorded):
                layer(inputs)
        replay = nn.Sequential(*[layer] * num_replayed)
        with pytest.raises(AssertionError, match=words):
            slope_of(replay, [inputs], [None], tape)


def test_the_tape_keeps_what_the_training_graph_keeps_and_one_sum_more():
    """So recording does not raise a step's peak; the sum is that of patches and positions, which no layer reads."""
    model, batch, tape, of_graph = small_clip(torch.float32), random_batch(1, 6), Tape(), set()

    def note(tensor):
        of_graph.add(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), tape.record():
        outputs = model(batch.frames, batch.token_ids)
    entries = [tape.take().value for _ in range(len(tape))]
    extra = [entry for entry in entries if entry.untyped_storage().data_ptr() not in of_graph]
    assert [tuple(entry.shape) for entry in extra] == [(6, 2, 4, 8)]  # clips, frames, patches, width
    assert len(entries) > 30 and outputs
