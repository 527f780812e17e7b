"""Tells the clips of the embedded corpus from others by what the generator records of each: its truth.

The record goes with a clip into shards and index, wherever they are moved and whoever indexed them.
"""

import json
from typing import Any

import numpy as np
import pyarrow as pa

from mama_ray.data.synthetic.own_facts import OWN_ATTRIBUTES
from mama_ray.data.synthetic.vocabulary import ATTRIBUTES

_RECORDED = {"kind", "facts", "stated", "clean_caption", "topic_rank"}
_NUM_READ = 4096  # of a large corpus so many records are read, evenly spread; all must be there


def count_other_clips(truths: pa.ChunkedArray) -> int:
    """Return how many clips were not made by the generator, by the column `truth` of their index.

    0 only if every clip has a record and every record that was read is the generator's.
    """
    if truths.null_count:
        return truths.null_count
    rows = np.unique(np.linspace(0, max(0, len(truths) - 1), min(_NUM_READ, len(truths))).astype(np.int64))
    return sum(not is_generators(truth) for truth in truths.take(pa.array(rows)).to_pylist())


def is_generators(truth: str | None) -> bool:
    """Tell whether a clip's record says what the generator's do: which objects it shows, in its own words."""
    try:
        record = json.loads(truth or "null")
    except ValueError:
        return False
    if not isinstance(record, dict) or not set(record) >= _RECORDED or not isinstance(record["facts"], dict):
        return False
    objects = record["facts"].get("objects")
    return isinstance(objects, list) and len(objects) in (1, 2) and all(map(_is_thing, objects))


def _is_thing(thing: Any) -> bool:
    if not isinstance(thing, dict) or set(thing) != set(ATTRIBUTES):
        return False
    return all(value in OWN_ATTRIBUTES[name] for name, value in thing.items())
