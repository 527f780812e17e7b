"""Search against brute force in float64, clip by clip."""

import numpy as np
import pytest

from mama_ray.errors import UserError
from mama_ray.search.embedding_table import EmbeddingTable
from mama_ray.search.index import MINUS_WEIGHT, ExactIndex, Query
from mama_ray.storage.places import Place
from tests.search.made_table import make_rows, unit, write_table

DIM, NUM_CLIPS = 48, 700


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return make_rows(NUM_CLIPS, DIM)


@pytest.fixture(scope="module")
def index(rows, tmp_path_factory) -> ExactIndex:
    folder = tmp_path_factory.mktemp("table")
    write_table(Place.of(folder), rows, DIM)
    return ExactIndex(EmbeddingTable.open(str(folder)))


def brute_force(rows: list[dict], query: Query) -> list[tuple[str, float]]:
    """Compare each clip alone, and sort."""

    def similarity_to(vector, feature):
        return float(np.dot(np.asarray(feature, np.float64), np.asarray(vector, np.float64)))

    def combined(feature):
        total = np.mean([similarity_to(vector, feature) for vector in query.plus]) if len(query.plus) else 0.0
        less = np.mean([similarity_to(vector, feature) for vector in query.minus]) if len(query.minus) else 0.0
        return total - MINUS_WEIGHT * less

    found = []
    for number, row in enumerate(rows):
        if query.allowed is not None and not query.allowed[number]:
            continue
        looks_at_video = query.mixture > 0 and row["video"] is not None
        looks_at_captions = query.mixture < 1 and row["captions"]
        if not looks_at_video and not looks_at_captions:
            continue
        pixels = combined(row["video"]) if looks_at_video else 0.0
        words = max(combined(one["feature"]) for one in row["captions"]) if looks_at_captions else 0.0
        found.append((row["clip_id"], query.mixture * pixels + (1 - query.mixture) * words))
    found.sort(key=lambda one: (-round(one[1], 9), one[0]))
    return found[query.offset : query.offset + query.limit]


def random_query(rng: np.random.Generator) -> Query:
    share = rng.choice([1.0, 0.5, 0.1])
    return Query(
        plus=unit(rng.normal(size=(rng.integers(1, 4), DIM))).astype(np.float32),
        minus=unit(rng.normal(size=(rng.integers(0, 3), DIM))).astype(np.float32),
        mixture=float(rng.choice([0.0, 0.3, 1.0])),
        allowed=None if share == 1 else rng.random(NUM_CLIPS) < share,
        limit=int(rng.integers(1, 40)),
        offset=int(rng.choice([0, 0, 15, 650])),
    )


def test_a_hundred_random_queries_with_filters_are_answered_as_by_brute_force(index, rows):
    rng = np.random.default_rng(1)
    for _ in range(100):
        query = random_query(rng)
        hits, expected = index.search(query), brute_force(rows, query)
        assert [hit.clip_id for hit in hits] == [clip_id for clip_id, _ in expected]
        np.testing.assert_allclose([hit.similarity for hit in hits], [one for _, one in expected], atol=1e-12)
        assert [rows[hit.row]["clip_id"] for hit in hits] == [hit.clip_id for hit in hits]


def test_the_rounding_of_half_precision_loses_no_clip(tmp_path):
    """All clips within the rounding: the fast pass alone cannot tell the best from the others."""
    rng = np.random.default_rng(2)
    center = unit(rng.normal(size=DIM))
    rows = make_rows(400, DIM)
    for row in rows:
        row["video"] = unit(center + 1e-3 * rng.normal(size=DIM)).astype(np.float16)
    write_table(Place.of(tmp_path), rows, DIM)
    index = ExactIndex(EmbeddingTable.open(str(tmp_path)))
    query = Query(plus=[center], limit=10)
    assert [hit.clip_id for hit in index.search(query)] == [clip_id for clip_id, _ in brute_force(rows, query)]


@pytest.mark.parametrize("length", [2.0**16, 2.0**100, 2.0**-19, 2.0**-100])
@pytest.mark.parametrize("mixture", [1.0, 0.3, 0.0])
def test_the_length_of_a_querys_feature_changes_no_order(index, length, mixture):
    feature = unit(np.random.default_rng(5).normal(size=DIM))
    hits = index.search(Query(plus=[length * feature], mixture=mixture, limit=10))
    expected = index.search(Query(plus=[feature], mixture=mixture, limit=10))
    assert [(hit.row, hit.similarity) for hit in hits] == [(hit.row, length * hit.similarity) for hit in expected]


def test_to_a_feature_of_no_length_all_clips_are_equal(index, rows):
    found = sorted(row["clip_id"] for row in rows if row["video"] is not None)
    assert [hit.clip_id for hit in index.search(Query(plus=[np.zeros(DIM)], limit=9))] == found[:9]


def test_equal_clips_come_in_the_order_of_their_ids_whatever_their_rows(index, rows):
    example = rows[4]["video"]  # row 9 is its equal
    equals = sorted(rows[row]["clip_id"] for row in (4, 9))
    hits = index.search(Query(plus=[example], limit=2))
    assert [hit.clip_id for hit in hits] == equals
    assert hits[0].similarity == hits[1].similarity


def test_pages_of_results_join_to_the_whole_list(index):
    vector = unit(np.random.default_rng(3).normal(size=DIM))
    whole = index.search(Query(plus=[vector], mixture=0.5, limit=60))
    pages = [index.search(Query(plus=[vector], mixture=0.5, limit=20, offset=start)) for start in (0, 20, 40)]
    assert [hit for page in pages for hit in page] == whole


def test_a_filter_changes_who_is_found_and_not_the_similarity(index):
    vector = unit(np.random.default_rng(4).normal(size=DIM))
    allowed = np.zeros(NUM_CLIPS, bool)
    allowed[::7] = True
    everyone = {hit.row: hit.similarity for hit in index.search(Query(plus=[vector], limit=NUM_CLIPS))}
    some = index.search(Query(plus=[vector], allowed=allowed, limit=NUM_CLIPS))
    assert {hit.row for hit in some} == {row for row in everyone if row % 7 == 0}
    assert all(everyone[hit.row] == hit.similarity for hit in some)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        (Query(plus=[]), "nothing to look for"),
        (Query(plus=[np.zeros(DIM + 1)]), "not the index's kind"),
        (Query(plus=[np.full(DIM, np.nan)]), "no numbers"),
        (Query(plus=[np.ones(DIM)], mixture=1.5), "mixture"),
        (Query(plus=[np.ones(DIM)], mixture=float("nan")), "mixture"),
        (Query(plus=[np.ones(DIM)], limit=0), "which results"),
        (Query(plus=[np.ones(DIM)], allowed=np.ones(3, bool)), "filter of another index"),
    ],
)
def test_a_query_that_is_none_is_refused_with_the_reason(index, query, told):
    with pytest.raises(UserError, match=told):
        index.search(query)


def test_a_filter_that_allows_nothing_finds_nothing(index):
    assert index.search(Query(plus=[np.ones(DIM)], allowed=np.zeros(NUM_CLIPS, bool))) == []
