"""The corpus as a folder: whole or not there, taken up where it stopped, never mixed with another."""

import json

import pytest

from mama_ray.data.annotations import parse_annotation, read_annotations
from mama_ray.data.synthetic import folder
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import generate_clip
from mama_ray.errors import UserError
from mama_ray.storage.places import Place

SMALL = CorpusConfig(num_train=20, num_meta=8, num_val=8, num_test=8)


def content(directory) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(folder, "CLIPS_PER_CHUNK", 16)


def test_the_annotations_are_what_prepare_reads(tmp_path):
    folder.write_corpus(SMALL, tmp_path / "corpus")
    rows = list(read_annotations(Place.of(tmp_path / "corpus/annotations.jsonl")))
    assert len(rows) == 44
    for _, row in rows:
        annotation = parse_annotation(row)
        _, _, split, number = annotation.clip_id.split("-")
        generated = generate_clip(SMALL, split, int(number))
        assert (tmp_path / "corpus/videos" / annotation.video).read_bytes() == generated.video
        assert annotation.captions == generated.clip.captions
        assert (annotation.topic, annotation.split) == (generated.clip.topic, split)
        assert (annotation.truth, annotation.questions) == (generated.clip.truth, generated.clip.questions)


def test_a_corpus_that_is_there_is_not_made_again(tmp_path):
    folder.write_corpus(SMALL, tmp_path)
    (tmp_path / "annotations.jsonl").touch()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert folder.write_corpus(SMALL, tmp_path) == str(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


def test_an_unfinished_corpus_is_completed_and_equals_one_made_at_once(tmp_path, small_chunks):
    folder.write_corpus(SMALL, tmp_path / "whole")
    half = tmp_path / "half"
    assert not folder.open_corpus(Place.of(half), SMALL)
    folder.write_chunk(Place.of(half), SMALL, 1)
    first = sorted((half / "videos").iterdir())[0]
    made_at = first.stat().st_mtime_ns
    assert not (half / "corpus.json").exists()
    folder.write_corpus(SMALL, half)
    assert content(half) == content(tmp_path / "whole")
    assert first.stat().st_mtime_ns == made_at


def test_a_folder_with_another_corpus_is_refused_and_left_alone(tmp_path):
    folder.write_corpus(SMALL, tmp_path)
    before = content(tmp_path)
    with pytest.raises(UserError, match=r"another corpus.*num_test 8 \(wanted 16\)"):
        folder.write_corpus(SMALL.model_copy(update={"num_test": 16}), tmp_path)
    assert content(tmp_path) == before


def test_an_unfinished_corpus_of_another_config_is_refused(tmp_path, small_chunks):
    folder.open_corpus(Place.of(tmp_path), SMALL)
    folder.write_chunk(Place.of(tmp_path), SMALL, 0)
    with pytest.raises(UserError, match="another corpus"):
        folder.write_corpus(SMALL.model_copy(update={"seed": 1}), tmp_path)


def test_a_folder_of_other_videos_is_refused(tmp_path):
    (tmp_path / "videos").mkdir()
    with pytest.raises(UserError, match="not a generated corpus"):
        folder.write_corpus(SMALL, tmp_path)


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / "corpus.json").write_text("{")
    with pytest.raises(UserError, match=r"damaged.*corpus\.json"):
        folder.write_corpus(SMALL, tmp_path)


def test_the_manifest_names_the_config(tmp_path):
    folder.write_corpus(SMALL, tmp_path)
    manifest = json.loads((tmp_path / "corpus.json").read_text())
    assert CorpusConfig(**manifest["config"]) == SMALL
