"""EgoMCQ by what its types mean."""

import numpy as np
import pytest

from mama_ray.errors import UserError
from mama_ray.evaluation.multiple_choice import choice_metrics


def test_the_fixture_has_the_official_codes_numbers_under_their_right_names(shared):
    arrays = np.load(shared / "data/metric_fixtures/egomcq.npz", allow_pickle=False)
    found = choice_metrics(arrays["preds"], arrays["labels"], arrays["types"])
    assert found == pytest.approx(
        {"accuracy_inter": 140 / 3, "accuracy_intra": 71.0, "legacy_Intra-video": 140 / 3, "legacy_Inter-video": 71.0}
    )
    assert ((arrays["types"] == 1).sum(), (arrays["types"] == 2).sum()) == (300, 200)


def test_a_missing_clip_is_never_chosen_and_none_at_all_is_wrong():
    scores = np.array([[-np.inf, 0.1], [-np.inf, -np.inf], [0.2, 0.1]])
    assert choice_metrics(scores, np.array([1, 0, 0]), np.array([1, 1, 1]))["accuracy_inter"] == pytest.approx(200 / 3)
    with pytest.raises(UserError, match="got NaN"):
        choice_metrics(scores * np.nan, np.array([1, 0, 0]), np.array([1, 1, 1]))
