"""What `make app` opens: the embedded corpus, the narrator and the encoder that come with the package, from nothing."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from mama_ray.data.index import read_index
from mama_ray.search.embedding_table import EmbeddingTable
from mama_ray.search.towers import Towers
from mama_ray.storage.places import Place
from tests.orchestration.serving.app_process import RunningApp, running_app
from tests.orchestration.serving.test_search import answered, best, shown

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.promise]

WORDS = "red circle moving left"
SHOWN = {"colour": "red", "motion": "left", "shape": "circle", "size": "small"}
# Of another seed than the encoder's: it has learned from none of them.
CORPUS = ("--corpus.num_train", "600", "--corpus.zipf_exponent", "0",
          "--corpus.num_meta", "0", "--corpus.num_val", "16", "--corpus.num_test", "16")  # fmt: skip


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Iterator[RunningApp]:
    data = tmp_path_factory.mktemp("embedded-app") / "app"
    with running_app(data, "configs/app/embedded.yaml", *CORPUS, within_s=600) as app:  # it makes corpus and index
        yield app


def test_the_first_clips_of_the_page_show_what_was_asked_for(app, browser):
    data = app.log_file.parent
    (shards,) = data.parent.glob("embedded-*/shards")
    facts = {row["clip_id"]: json.loads(row["truth"])["facts"]["objects"][0]
             for row in read_index(Place.of(shards)).to_pylist()}  # fmt: skip
    (right,) = (clip_id for clip_id, fact in facts.items() if fact == SHOWN)
    asked = {name: SHOWN[name] for name in ("colour", "motion", "shape")}

    def precision(clip_ids: list[str]) -> float:
        """Share of clips that show two at least of the three things asked for."""
        return float(np.mean([len(asked.items() & facts[clip_id].items()) >= 2 for clip_id in clip_ids]))

    table, towers = EmbeddingTable.open(str(data / "index")), Towers.load("embedded", num_processes=1)
    by_features = best(table, towers.embed_texts([WORDS])[0], 5)
    with browser.page(app.url) as page:
        shown(page)
        page.fill("#words", WORDS)
        with answered(page):
            page.press("#words", "Enter")
        by_page = shown(page)
        assert by_page == by_features
        assert by_page[0] == right  # the only circle that is red and moves left
        assert precision(by_page) == precision(by_features) == 1.0
