"""Heads of a checkpoint against the classes of a benchmark, before anything is embedded."""

from dataclasses import replace

import pytest

from mama_ray.errors import UserError
from mama_ray.evaluation.annotated_benchmark import ClassificationBenchmark, MultiInstanceBenchmark
from mama_ray.evaluation.targets import read_targets
from mama_ray.models.heads.classes import ClassHeadFile, ClassHeads, capture_class_head
from mama_ray.orchestration.evaluation.class_heads import check_targets, require_fitting_head
from tests.evaluation.small_annotations import write_charades, write_ek100

EK100 = ClassificationBenchmark(family="classification", dataset="ek100_cls", annotations="ek100")


def test_heads_of_a_run_that_saw_fewer_actions_than_it_has_outputs_fit(tmp_path):
    """EPIC_100_train.csv alone has not all of the 3,806 actions."""
    targets = read_targets(EK100, write_ek100(tmp_path))
    sizes = {"verb": 12, "noun": 5, "action": 9}
    written = capture_class_head(ClassHeads(4, sizes), ("10:1", "2:0")).content
    require_fitting_head(targets, ClassHeadFile.model_validate(written))
    require_fitting_head(targets, None)
    require_fitting_head(None, ClassHeadFile.model_validate(written))


@pytest.mark.parametrize(
    ("sizes", "actions", "message"),
    [
        ({"verb": 12, "noun": 7, "action": 2}, ("10:1", "2:0"), "noun of 7"),
        ({"verb": 12, "noun": 5}, (), "wanted action of"),
        ({"action": 2}, ("9:9", "8:8"), "knows none of the benchmark's actions"),
    ],
)
def test_heads_of_other_classes_are_told_before_a_clip_is_embedded(tmp_path, sizes, actions, message):
    targets = read_targets(EK100, write_ek100(tmp_path))
    with pytest.raises(UserError, match=message):
        require_fitting_head(targets, ClassHeadFile(dim=4, sizes=sizes, dropout=0.0, actions=actions))


def test_classes_and_captions_without_a_clip_are_told_before_one_is_embedded(tmp_path):
    charades = ClassificationBenchmark(family="classification", dataset="charades_ego", annotations="charades_ego")
    (tmp_path / "charades").mkdir()
    targets = read_targets(charades, write_charades(tmp_path / "charades"))
    check_targets(charades, targets, None)
    check_targets(charades, None, None)
    without = replace(targets, labels=targets.labels & [True, False])
    with pytest.raises(UserError, match="classes without a positive: got 1, Opening a door"):
        check_targets(charades, without, None)
    check_targets(charades.model_copy(update={"absent_classes": "left_out"}), without, None)

    mir = MultiInstanceBenchmark(family="multi_instance", dataset="ek100_mir")
    (tmp_path / "ek100").mkdir()
    found = read_targets(mir, write_ek100(tmp_path / "ek100"))
    check_targets(mir, found, None)
    with pytest.raises(UserError, match="queries without a positive"):
        check_targets(mir, replace(found, captions=found.captions.take([0])), None)
