"""Clips of the embedded corpus are told from others by their records, wherever they lie."""

import json

import pyarrow as pa
import pytest

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import describe_clip
from mama_ray.data.synthetic.recognise import count_other_clips, is_generators


def truths_of(**changes) -> list[str]:
    config = CorpusConfig(num_train=64, num_meta=16, num_val=16, num_test=16, **changes)
    clips = [describe_clip(config, split, n) for split, count in config.num_clips.items() for n in range(count)]
    return [json.dumps(clip.truth, sort_keys=True) for clip in clips]


@pytest.mark.parametrize("changes", [{}, {"level": "full"}, {"domain": "source"}, {"seed": 7, "incomplete_rate": 0.5}])
def test_every_clip_of_a_generated_corpus_is_known(changes):
    assert count_other_clips(pa.chunked_array([truths_of(**changes)])) == 0


def test_one_clip_of_another_kind_among_them_is_found():
    truths = truths_of()
    assert count_other_clips(pa.chunked_array([[*truths[:50], None, None, *truths[50:]]])) == 2
    assert count_other_clips(pa.chunked_array([[*truths, '{"kind": "clean"}']])) == 1
    assert count_other_clips(pa.chunked_array([pa.array([None, None], pa.string())])) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"facts": {"objects": []}}, {"facts": {"objects": [{"shape": "apple"}]}}, {"facts": None}, {"facts": {}},
        {"facts": {"objects": [{"shape": "circle", "colour": "red", "size": "large", "motion": ["left"]}]}},
    ],
)  # fmt: skip
def test_a_record_of_other_things_is_not_the_generators(change):
    record = json.loads(truths_of()[0])
    assert is_generators(json.dumps(record))
    assert not is_generators(json.dumps(record | change))


@pytest.mark.parametrize("truth", [None, "", "not JSON", "[]", "1", '"clean"', "{}"])
def test_what_is_no_record_is_not_either(truth):
    assert not is_generators(truth)
