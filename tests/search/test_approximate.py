"""Approximate search: what it finds is exact, how much it finds is measured."""

import logging

import numpy as np
import pytest

from mama_ray.search.approximate import ApproximateIndex, build_index, measure_recall
from mama_ray.search.embedding_table import EmbeddingTable
from mama_ray.search.index import ExactIndex, Query
from mama_ray.storage.places import Place
from tests.search.made_table import make_rows, unit, write_table

DIM, NUM_CLIPS = 24, 6000


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> EmbeddingTable:
    """Clips in 60 crowds, as those of a corpus are."""
    rng = np.random.default_rng(0)
    centers = unit(rng.normal(size=(60, DIM)))
    rows = make_rows(NUM_CLIPS, DIM)
    for number, row in enumerate(rows):
        near = unit(centers[number % 60] + 0.15 * rng.normal(size=DIM)).astype(np.float16)
        row["video"] = None if row["video"] is None else near
        row["captions"] = [caption | {"feature": near} for caption in row["captions"]]
    folder = tmp_path_factory.mktemp("table")
    write_table(Place.of(folder), rows, DIM, part_clips=1000)
    return EmbeddingTable.open(str(folder))


@pytest.fixture(scope="module")
def index(table) -> ApproximateIndex:
    return ApproximateIndex(table)


def test_nearly_all_of_the_best_are_found(index):
    assert measure_recall(index) > 0.95


def test_recall_falls_where_lists_are_not_looked_at(table):
    """The measure itself is able to fail."""
    poor = ApproximateIndex(table)
    poor._video.nprobe = poor._captions.nprobe = 1
    assert measure_recall(poor) < 0.95


@pytest.mark.parametrize("mixture", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("share", [1.0, 0.1, 0.001])
def test_what_is_found_is_allowed_and_has_its_exact_similarity_and_order(index, table, mixture, share):
    rng = np.random.default_rng(1)
    query = Query(
        plus=[table.video[7].astype(np.float32)],
        minus=[table.video[8].astype(np.float32)],
        mixture=mixture,
        allowed=rng.random(NUM_CLIPS) < share,
        limit=30,
    )
    exact = ExactIndex(table)
    known = {hit.row: hit for hit in exact.search(Query(query.plus, query.minus, mixture, query.allowed, NUM_CLIPS))}
    hits = index.search(query)
    assert len(hits) == min(30, len(known))
    assert all(known[hit.row] == hit for hit in hits)
    order = list(known)
    assert sorted(hits, key=lambda hit: order.index(hit.row)) == hits


def test_the_recall_of_an_approximate_index_is_told_when_it_is_built(table, caplog):
    with caplog.at_level(logging.INFO):
        assert isinstance(build_index(table, "exact"), ExactIndex)
        assert not caplog.records
        build_index(table, "approximate")
    assert "recall@10 against exact search is" in caplog.text
