"""Which captions of others fit better, against a double loop."""

import numpy as np
import pytest

from mama_ray.auditing.fit import compare_captions

NUM_CLIPS, DIM = 700, 8  # more than are compared at a time


@pytest.fixture
def features():
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 4, size=NUM_CLIPS)
    offsets = np.cumsum([0, *counts])
    videos, texts = (rng.normal(size=(count, DIM)) for count in (NUM_CLIPS, offsets[-1]))
    videos, texts = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (videos, texts))
    judged = offsets[:-1] + rng.integers(0, counts)
    return videos, texts, offsets, judged


def test_the_comparison_equals_a_double_loop(features):
    videos, texts, offsets, judged = features
    found = compare_captions(videos, texts, offsets, judged, num_compared=10**6)
    for row in range(0, NUM_CLIPS, 37):
        own = videos[row] @ texts[judged[row]]
        others = [place for place in range(len(texts)) if not offsets[row] <= place < offsets[row + 1]]
        better = sorted(
            (-videos[row] @ texts[place], place) for place in others if videos[row] @ texts[place] > own + 1e-4
        )
        assert found.share_better[row] == pytest.approx(len(better) / len(others))
        wanted = [place for _, place in better[:3]]
        assert found.best_others[row].tolist() == wanted + [-1] * (3 - len(wanted))
        assert found.cosine[judged[row]] == pytest.approx(own)


def test_a_part_of_the_captions_gives_nearly_the_same_share(features):
    whole, part = (compare_captions(*features, num_compared=num).share_better for num in (10**6, 400))
    assert np.abs(whole - part).max() < 0.12
    assert not np.array_equal(whole, part)


def test_an_equal_caption_of_another_clip_fits_no_better():
    videos = np.array([[1.0, 0.0], [1.0, 0.0]])
    texts = np.array([[0.6, 0.8], [0.6, 0.8]])
    found = compare_captions(videos, texts, np.array([0, 1, 2]), np.array([0, 1]), num_compared=10)
    assert found.share_better.tolist() == [0.0, 0.0]
