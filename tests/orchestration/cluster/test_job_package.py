"""What `ray job submit --working-dir .` takes along: the code, and not what README's commands have written."""

from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import get_excludes_from_ignore_files

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", ["shards", "captions", "runs", "corpus", ".venv"])
def test_what_jobs_write_stays_behind(name):
    excludes = get_excludes_from_ignore_files(ROOT, include_gitignore=True)
    assert any(is_left_out(ROOT / name / "clips-000000.tar") for is_left_out in excludes)


@pytest.mark.parametrize("name", ["jobs/train.py", "configs/train/cluster.yaml", "mama_ray/captioning/captions.py"])
def test_code_and_configs_are_sent(name):
    excludes = get_excludes_from_ignore_files(ROOT, include_gitignore=True)
    assert not any(is_left_out(ROOT / name) for is_left_out in excludes)
