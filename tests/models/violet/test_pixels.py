"""How frames become what VIOLET sees: as in its release, and of runs that began before, as they learned."""

import json

import pytest
import yaml

from mama_ray.models.pretrained import describe_model, from_pretrained, save_pretrained
from mama_ray.models.run_config import RUN_CONFIG, evaluation_transform, frame_transform, training_config
from mama_ray.models.violet.presets import PRESETS
from tests.models.violet.small import small_violet


def test_a_released_model_takes_the_centre_scaled_bilinearly():
    assert str(evaluation_transform(PRESETS["violet_v2"], {})) == "center_crop, bilinear"
    assert str(frame_transform(PRESETS["violet_v2"], "random_crop")) == "random_crop, bilinear"


@pytest.mark.parametrize(
    ("trained", "is_old", "seen"),
    [
        ("random_crop", False, "center_crop, bilinear"),
        ("squash", False, "squash, bilinear"),
        (None, False, "center_crop, bilinear"),
        ("squash", True, "squash"),
        (None, True, "squash"),
    ],
)
def test_a_run_is_evaluated_as_it_was_trained(trained, is_old, seen, tmp_path):
    save_pretrained(small_violet({"resize": "center_crop", "interpolation": "bilinear"}), tmp_path)
    if is_old:
        content = json.loads((tmp_path / "config.json").read_text())
        del content["resize"], content["interpolation"]
        (tmp_path / "config.json").write_text(json.dumps(content))
    if trained is not None:
        (tmp_path / RUN_CONFIG).write_text(yaml.safe_dump({"data": {"resize": trained}}))
    for config in (describe_model(tmp_path), from_pretrained(tmp_path).config):
        assert str(evaluation_transform(config, training_config(tmp_path / RUN_CONFIG))) == seen
