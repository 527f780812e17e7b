"""Where a model is: a run's folder is none, and says so."""

import pytest

from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.model_source import look_at_model


def test_a_runs_folder_is_refused_with_the_name_of_a_checkpoint(tmp_path):
    for step in (10, 20):
        (tmp_path / f"checkpoints/step_{step:08d}").mkdir(parents=True)
    with pytest.raises(UserError, match=r"not the folder of a model.*name one checkpoint, as .*/step_00000020$"):
        look_at_model(str(tmp_path))
    (tmp_path / "checkpoints/step_00000020/config.json").write_text("{}")
    look_at_model(str(tmp_path / "checkpoints/step_00000020"))
