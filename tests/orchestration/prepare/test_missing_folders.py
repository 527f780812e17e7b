"""A folder that is not there is told at once: nothing is started, and nothing is made."""

import pytest

from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.run import run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"videos": "none", "annotations": None}, "no such folder of videos"),
        ({"videos": "void", "annotations": None}, "the folder of videos is empty"),
        ({"videos": "file", "annotations": None}, "not a folder of videos"),
        ({"videos": None, "annotations": None, "shards": "none"}, "no such folder of shards"),
    ],
)
def test_a_folder_that_is_not_there_is_told_before_anything_is_made(tmp_path, change, message):
    (tmp_path / "void").mkdir()
    (tmp_path / "file").touch()
    change = {name: str(tmp_path / value) if value else value for name, value in change.items()}
    with pytest.raises(UserError, match=message):
        run(PrepareJob(**{"output": str(tmp_path / "output"), **change}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "void"]


@pytest.mark.parametrize("name", ["videos", "annotations", "shards", "output"])
def test_an_empty_path_does_not_pass_for_none_for_which_the_embedded_corpus_is_made(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"--{name} is empty: wanted a path or URI"):
        run(PrepareJob(**{name: ""}))
    assert list(tmp_path.iterdir()) == []
