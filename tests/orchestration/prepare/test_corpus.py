"""The corpus made on Ray equals the one made in one process."""

import pytest

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.folder import write_corpus
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.corpus import build_corpus

pytestmark = pytest.mark.ray
# More than two chunks.
CONFIG = CorpusConfig(level="full", num_train=260, num_meta=16, num_val=8, num_test=8)


def content(directory) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_ray_and_one_process_make_the_same_bytes(ray_cluster, tmp_path):
    assert build_corpus(CONFIG, str(tmp_path / "ray")) == str(tmp_path / "ray")
    write_corpus(CONFIG, tmp_path / "alone")
    assert content(tmp_path / "ray") == content(tmp_path / "alone")


def test_the_same_config_reuses_the_folder_and_another_is_refused(ray_cluster, tmp_path):
    small = CorpusConfig(num_train=8, num_meta=8, num_val=8, num_test=8)
    build_corpus(small, str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    build_corpus(small, str(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with pytest.raises(UserError, match="another corpus"):
        build_corpus(small.model_copy(update={"seed": 3}), str(tmp_path))


def test_a_storage_that_cannot_be_written_gives_one_clear_error(ray_cluster, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="storage"):
        build_corpus(CorpusConfig(num_train=8), str(tmp_path / "file" / "corpus"))
