"""VGT's parts against loops."""

import math

import pytest
import torch

from mama_ray.models.attention import attend
from mama_ray.models.distilbert import Transformer
from mama_ray.models.recompute import run_layer
from mama_ray.models.vgt.blocks import (
    GraphConvolution,
    add_attended_words,
    attention_pooling,
    sinusoids,
)
from tests.models.vgt.small import attended_by_loops, convolved_by_loops


def test_dropped_attention_repeats_where_the_generator_is_reset_and_has_the_right_mean():
    queries, keys = torch.randn(2, 3, 8).double(), torch.randn(2, 5, 8).double()
    torch.manual_seed(1)
    first = attend(queries, keys, keys, 2, dropout=0.3)
    torch.manual_seed(1)
    assert torch.equal(first, attend(queries, keys, keys, 2, dropout=0.3))
    many = torch.stack([attend(queries, keys, keys, 2, dropout=0.3) for _ in range(4000)])
    whole = attend(queries, keys, keys, 2)
    assert ((many.mean(dim=0) - whole).abs() < 6 * many.std(dim=0) / math.sqrt(len(many)) + 1e-3).all()
    mask = torch.rand(2, 1, 3, 5) < 0.7
    mask[..., 0] = True
    torch.testing.assert_close(
        attend(queries, keys, keys, 2, mask=mask, dropout=1e-12), attend(queries, keys, keys, 2, mask=mask)
    )


def test_graph_convolution_equals_a_loop():
    layer, nodes = GraphConvolution(6, 4).double(), torch.randn(3, 5, 6).double()
    edges = torch.randn(3, 5, 5).double()
    wanted = torch.stack([convolved_by_loops(layer, *graph) for graph in zip(nodes, edges, strict=True)])
    torch.testing.assert_close(layer(nodes, edges), wanted)


def test_attention_pooling_weighs_the_nodes_of_a_graph_to_one():
    pooling, nodes = attention_pooling(8).double(), torch.randn(3, 5, 8).double()
    weights = pooling(nodes)
    scores = [[pooling[2](pooling[0](node).tanh()).item() for node in graph] for graph in nodes]
    for graph, row in zip(weights, scores, strict=True):
        total = sum(math.exp(score) for score in row)
        assert graph[:, 0].tolist() == pytest.approx([math.exp(score) / total for score in row])


def test_words_are_attended_to_as_in_a_loop_up_to_their_length():
    tokens, words = torch.randn(3, 4, 6).double(), torch.randn(3, 5, 6).double()
    lengths = torch.tensor([5, 2, 1])
    ours = add_attended_words(tokens, words, lengths)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(ours[row], attended_by_loops(tokens[row], words[row], length))
    words[1, 2:] = 1e3
    assert torch.equal(add_attended_words(tokens, words, lengths)[1], ours[1])


def test_positions_alternate_sine_and_cosine_of_one_angle():
    table = sinusoids(28, 512)
    assert table.shape == (28, 512)
    for place, column in ((0, 0), (0, 1), (3, 0), (3, 1), (7, 100), (7, 101), (27, 511)):
        angle = place / 10_000 ** (2 * (column // 2) / 512)
        wanted = math.cos(angle) if column % 2 else math.sin(angle)
        assert table[place, column].item() == pytest.approx(wanted, abs=1e-6)


def test_recomputed_layer_draws_the_same_masks_in_backward():
    transformer, tokens = Transformer(8, 2, 16, dropout=0.5, num_layers=2), torch.randn(2, 3, 8)

    def gradients(recompute: bool) -> list[torch.Tensor]:
        transformer.gradient_checkpointing = recompute
        torch.manual_seed(3)
        return list(torch.autograd.grad(transformer(tokens).square().sum(), list(transformer.parameters())))

    assert all(torch.equal(a, b) for a, b in zip(gradients(False), gradients(True), strict=True))
    with torch.no_grad():
        assert not run_layer(transformer.layer[0], tokens, recompute=True).requires_grad
