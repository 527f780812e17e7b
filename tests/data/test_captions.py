from collections import Counter

import numpy as np
import pytest

from mama_ray.data.captions import caption_for_evaluation, choose_caption
from mama_ray.errors import UserError

CAPTIONS = [
    {"text": "a man cooks", "source": "human"},
    {"text": "someone is cooking", "source": "rephrased"},
    {"text": "a person stirs a pan", "source": "generated"},
    {"text": "onions fry in a pan", "source": "generated"},
]


def draw(probabilities, captions=CAPTIONS, num_draws=4000):
    rng = np.random.default_rng(0)
    counts = Counter(choose_caption(captions, probabilities=probabilities, rng=rng) for _ in range(num_draws))
    return {text: count / num_draws for text, count in counts.items()}


def test_without_probabilities_every_caption_is_as_likely():
    shares = draw(None)
    assert set(shares) == {caption["text"] for caption in CAPTIONS}
    assert all(abs(share - 0.25) < 0.03 for share in shares.values())


def test_probabilities_belong_to_sources_and_are_split_evenly_within_one():
    shares = draw({"human": 0.5, "generated": 0.5, "rephrased": 0.0})
    assert abs(shares["a man cooks"] - 0.5) < 0.03
    assert abs(shares["a person stirs a pan"] - 0.25) < 0.03
    assert "someone is cooking" not in shares


def test_probabilities_are_renormalised_over_the_sources_present():
    shares = draw({"human": 0.1, "rephrased": 0.3, "asr": 0.6})
    assert abs(shares["a man cooks"] - 0.25) < 0.03
    assert abs(shares["someone is cooking"] - 0.75) < 0.03


def test_the_draw_does_not_depend_on_the_order_of_the_sources():
    one = choose_caption(CAPTIONS, probabilities={"human": 0.4, "generated": 0.6}, rng=np.random.default_rng(5))
    two = choose_caption(CAPTIONS, probabilities={"generated": 0.6, "human": 0.4}, rng=np.random.default_rng(5))
    assert one == two


def test_a_clip_without_a_usable_caption_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="no caption"):
        choose_caption([], probabilities=None, rng=rng)
    with pytest.raises(UserError, match="of a source that is drawn from"):
        choose_caption(CAPTIONS, probabilities={"asr": 1.0}, rng=rng)
    with pytest.raises(UserError, match="finite numbers"):
        choose_caption(CAPTIONS, probabilities={"human": -1.0}, rng=rng)


def test_paragraph_mode_joins_all_sentences():
    sentences = [
        {"text": text, "source": "human"} for text in (" First this. ", "Then that.\n", "", "At last, the end.")
    ]
    assert caption_for_evaluation(sentences, "paragraph") == "First this. Then that. At last, the end."


def test_single_mode_demands_exactly_one_caption():
    assert caption_for_evaluation(CAPTIONS[:1], "single") == "a man cooks"
    for captions in (CAPTIONS, []):
        with pytest.raises(UserError, match="exactly 1"):
            caption_for_evaluation(captions, "single")


def test_multi_mode_returns_all_captions_in_file_order():
    assert caption_for_evaluation(CAPTIONS, "multi") == [caption["text"] for caption in CAPTIONS]
    with pytest.raises(UserError, match="caption mode"):
        caption_for_evaluation(CAPTIONS, "random")
