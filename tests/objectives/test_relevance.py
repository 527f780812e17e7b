"""Relevance of EPIC-KITCHENS-100's retrieval: its published counts, from the official files."""

import csv
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from mama_ray.data.classes.assemble import multi_hot
from mama_ray.data.classes.table import read_classes
from mama_ray.objectives.relevance import PairClasses, relevance_between, relevance_of_pairs

EPIC = Path(__file__).resolve().parents[2] / "../shared/data/annotations/epic100"


@pytest.mark.skipif(not EPIC.is_dir(), reason="../shared/data is not there")
def test_relevance_of_the_official_test_split_has_its_published_counts():
    table = read_classes([str(EPIC / "EPIC_100_retrieval_test.csv")])
    sets = []
    for name in ("test", "test_sentence"):
        with (EPIC / f"EPIC_100_retrieval_{name}.csv").open(newline="") as file:
            ids = [row["narration_id"] for row in csv.DictReader(file)]
        kinds = multi_hot(table.add_to(pa.table({"clip_id": ids}), name), table.sizes)
        sets.append([torch.from_numpy(kind) for kind in kinds.values()])
    relevance = relevance_between(*sets)
    assert relevance.shape == (9668, 3842)
    assert (int((relevance == 1).sum()), int((relevance > 0).sum())) == (62_535, 4_224_956)
    assert float(relevance.double().sum()) == pytest.approx(2_040_309.2333, abs=0.01)


def test_a_pair_has_the_relevance_on_the_diagonal_and_empty_sets_have_none():
    generator = torch.Generator().manual_seed(0)
    videos, texts = (
        tuple(torch.randint(0, 2, (6, size), generator=generator, dtype=torch.uint8) for size in (3, 5))
        for _ in range(2)
    )
    videos[1][2], texts[1][2], videos[0][2] = 0, 0, 1
    found = relevance_between(videos, texts, torch.float64)
    assert torch.equal(relevance_of_pairs(PairClasses(videos, texts), torch.float64), found.diag())
    assert float(found[2, 2]) == float(texts[0][2].sum()) / 3 / 2
