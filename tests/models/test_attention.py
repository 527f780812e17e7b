import pytest
import torch

from mama_ray.models.attention import attend, causal_attention, causal_attention_at, proxy_guided_attention

HEADS, WIDTH = 2, 8


def _qkv(num_tokens: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, num_tokens, WIDTH, dtype=torch.float64, generator=generator) for _ in range(3))


@pytest.mark.parametrize(("num_proxies", "num_frames", "num_patches"), [(4, 3, 5), (1, 1, 4), (1, 6, 1), (2, 5, 3)])
def test_two_calls_equal_dense_attention_under_the_proxy_mask(num_proxies, num_frames, num_patches):
    num_tokens = num_proxies + num_frames * num_patches
    frame = torch.tensor([-1] * num_proxies + [t for t in range(num_frames) for _ in range(num_patches)])
    sees = torch.zeros(num_tokens, num_tokens, dtype=torch.bool)
    for query in range(num_tokens):
        for key in range(num_tokens):
            sees[query, key] = frame[query] == -1 or frame[key] == -1 or frame[query] == frame[key]
    queries, keys, values = _qkv(num_tokens)
    dense = attend(queries, keys, values, HEADS, mask=sees[None, None])
    ours = proxy_guided_attention(queries, keys, values, HEADS, num_proxies=num_proxies, num_frames=num_frames)
    torch.testing.assert_close(ours, dense, rtol=1e-12, atol=1e-12)


def test_attention_equals_a_loop_over_heads_and_queries():
    queries, keys, values = _qkv(5)
    expected = torch.empty_like(queries)
    for head in range(HEADS):
        part = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
        for row in range(2):
            for token in range(5):
                logits = keys[row, :, part] @ queries[row, token, part] / (WIDTH / HEADS) ** 0.5
                expected[row, token, part] = logits.softmax(0) @ values[row, :, part]
    torch.testing.assert_close(attend(queries, keys, values, HEADS), expected, rtol=1e-12, atol=1e-12)


def test_one_causal_query_equals_its_row_of_causal_attention():
    queries, keys, values = _qkv(6)
    positions = torch.tensor([1, 4])
    every = causal_attention(queries, keys, values, HEADS)
    one = causal_attention_at(queries[[0, 1], positions, None], keys, values, HEADS, positions=positions)
    torch.testing.assert_close(one[:, 0], every[[0, 1], positions], rtol=1e-12, atol=1e-12)
