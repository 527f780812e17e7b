"""The folder of an embedded corpus is the one that earlier versions made of the same settings."""

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.orchestration.prepare.embedded import folder_name


def test_a_corpus_is_found_where_it_was_made_before_its_later_fields_came():
    assert folder_name(CorpusConfig()) == "embedded"
    assert folder_name(CorpusConfig(num_train=7)) == "embedded-d642eb40"
    assert folder_name(CorpusConfig(level="full", domain="source")) == "embedded-9cc19b63"
    labelled = {"num_train": 300, "swapped_rate": 0.4, "label_rate": {"swapped": 1.0, "clean": 0.5}}
    assert folder_name(CorpusConfig(level="full", **labelled)) == "embedded-961d84ee"


def test_another_kind_of_texts_is_another_folder():
    names = {folder_name(CorpusConfig(texts="first_person", human_rate=rate)) for rate in (0.1, 0.2)}
    assert len(names | {"embedded"}) == 3
