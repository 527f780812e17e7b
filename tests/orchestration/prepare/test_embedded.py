"""The folder of an embedded corpus lies under the storage, and is the one that earlier versions made of the same
settings.
"""

import pytest

from mama_ray.data.index import read_index
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.orchestration.prepare.embedded import embedded_shards, folder_name
from mama_ray.storage.places import Place


def test_a_corpus_is_found_where_it_was_made_before_its_later_fields_came():
    assert folder_name(CorpusConfig()) == "embedded"
    assert folder_name(CorpusConfig(num_train=7)) == "embedded-d642eb40"
    assert folder_name(CorpusConfig(level="full", domain="source")) == "embedded-9cc19b63"
    labelled = {"num_train": 300, "swapped_rate": 0.4, "label_rate": {"swapped": 1.0, "clean": 0.5}}
    assert folder_name(CorpusConfig(level="full", **labelled)) == "embedded-961d84ee"


def test_another_kind_of_texts_is_another_folder():
    names = {folder_name(CorpusConfig(texts="first_person", human_rate=rate)) for rate in (0.1, 0.2)}
    assert len(names | {"embedded"}) == 3


@pytest.mark.ray
def test_the_corpus_of_a_run_on_another_storage_is_made_there_where_all_nodes_see_it(
    ray_cluster, tmp_path, monkeypatch
):
    (tmp_path / "storage").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    corpus = CorpusConfig(num_train=2, num_meta=0, num_val=0, num_test=0)
    storage = f"local://{tmp_path}/storage"
    shards = embedded_shards(corpus, storage)
    assert shards == f"{storage}/{folder_name(corpus)}/shards"
    assert len(read_index(Place.of(shards))) == 2
    assert list((tmp_path / "here").iterdir()) == []
