"""From features and heads to metrics: a missing clip is wrong everywhere, and each benchmark has its names."""

import numpy as np
import pytest

from mama_ray.errors import UserError
from mama_ray.evaluation.annotated_scores import (
    choice_scores,
    head_scores,
    measure_choices,
    measure_classes,
    measure_multi_instance,
    pool_views,
    zero_shot_scores,
)
from mama_ray.evaluation.multi_instance import similarity_of_matrix
from mama_ray.evaluation.targets import ChoiceTargets, MultiInstanceTargets, read_targets
from mama_ray.orchestration.evaluation.run import load_benchmark
from tests.evaluation.small_annotations import write_charades, write_egomcq, write_egtea, write_ek100

NONE_OF_6 = np.zeros(6, bool)


def units(rng, *shape: int) -> np.ndarray:
    values = rng.standard_normal(shape)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def test_a_class_is_the_direction_of_its_mean_text_and_the_best_view_counts(tmp_path):
    rng = np.random.default_rng(0)
    benchmark = load_benchmark("charades_ego").model_copy(update={"templates": ("{}", "#C C {}", "#C {}")})
    targets = read_targets(benchmark, write_charades(tmp_path))
    videos, texts = units(rng, 3, 4, 8), units(rng, 6, 8)
    found = {pool: zero_shot_scores(targets, videos, texts, pool)["class"] for pool in ("max", "mean")}
    for clip in range(3):
        for number in range(2):
            mean = texts[3 * number : 3 * number + 3].mean(axis=0)
            cosines = [view @ mean / np.linalg.norm(mean) for view in videos[clip]]
            assert found["max"][clip, number] == pytest.approx(max(cosines), abs=1e-6)
            assert found["mean"][clip, number] == pytest.approx(np.mean(cosines), abs=1e-6)


def test_verbs_and_nouns_follow_from_actions(tmp_path):
    targets = read_targets(load_benchmark("ek100_cls"), write_ek100(tmp_path))
    right = np.where(targets.labels, 9.0, 0.0)
    metrics = measure_classes(targets, {"action": right}, NONE_OF_6)
    names = [f"{name}_top{k}" for name in ("action", "verb", "noun") for k in (1, 5)]
    names += ["verb_top1_tail", "noun_top1_tail", "verb_top1_unseen", "noun_top1_unseen", "action_top1_unseen"]
    assert metrics == dict.fromkeys(names, 100.0)
    # Actions that are wrong may have the right verb: 2:0 for 2:2.
    moved = right.copy()
    moved[1] = np.where(np.array(targets.class_names) == "2:0", 9.0, 0.0)
    metrics = measure_classes(targets, {"action": moved}, NONE_OF_6)
    assert metrics["verb_top1"] == 100
    assert (metrics["action_top1"], metrics["noun_top1_tail"]) == pytest.approx((500 / 6, 200 / 3))
    missing = np.arange(6) == 5
    metrics = measure_classes(targets, {"action": right}, missing)
    assert metrics["verb_top1"] == metrics["verb_top5"] == pytest.approx(500 / 6)
    assert metrics["action_top1_unseen"] == 50


def test_three_heads_speak_for_themselves_and_wrong_ones_are_refused(tmp_path):
    targets = read_targets(load_benchmark("ek100_cls"), write_ek100(tmp_path))
    assert targets.parts is not None
    outputs = {"action": np.where(targets.labels, 9.0, 0.0)[:, None], "verb": np.zeros((6, 1, 12))}
    outputs["verb"][:, 0, 7] = 1
    scores = head_scores(targets, outputs)
    metrics = measure_classes(targets, scores, NONE_OF_6)
    assert (metrics["verb_top1"], metrics["noun_top1"], metrics["action_top1"]) == (0, 100, 100)
    with pytest.raises(UserError, match="got noun of 5, wanted action of 8, verb of 12, noun of 5"):
        head_scores(targets, {"noun": np.zeros((6, 1, 5))})
    with pytest.raises(UserError, match="got action of 7, wanted action of 8"):
        head_scores(targets, {"action": np.zeros((6, 1, 7))})
    with pytest.raises(UserError, match="the head knows none of the benchmark's actions: got 9:9"):
        head_scores(targets, {"action": np.zeros((6, 1, 1))}, actions=["9:9"])
    np.testing.assert_array_equal(pool_views(np.array([[[1.0, 4.0], [3.0, 0.0]]]), "max"), [[3.0, 4.0]])


def test_a_head_of_other_actions_is_read_by_their_names(tmp_path):
    """The head knows four actions, one of which is none of the benchmark's, in another order."""
    targets = read_targets(load_benchmark("ek100_cls"), write_ek100(tmp_path))
    logits = np.full((6, 1, 4), -2.0)
    logits[:, 0, 2] = 1.0
    found = head_scores(targets, {"action": logits}, actions=["2:2", "9:9", "1:1", "0:2"])["action"]
    assert found.shape == (6, 8)
    assert {targets.class_names[number] for number in found.argmax(axis=1)} == {"1:1"}
    assert found[0, targets.class_names.index("10:1")] < found[0, targets.class_names.index("2:2")]
    assert measure_classes(targets, {"action": found}, NONE_OF_6)["action_top1"] == pytest.approx(100 / 6)
    egtea = read_targets(load_benchmark("egtea"), write_egtea(tmp_path, {"split1": [0, 1]}))
    assert set(head_scores(egtea, {"action": np.zeros((2, 1, 3))})) == {"class"}


def test_egteas_lists_have_numbers_of_their_own_and_a_mean(tmp_path):
    """Clips of classes 0, 1, 2, 0 of which the third is taken for class 0."""
    targets = read_targets(load_benchmark("egtea"), write_egtea(tmp_path, {"split1": [0, 1], "split2": [1, 2, 3]}))
    scores = np.array([[2.0, 1, 0], [0, 2, 1], [2, 1, 0], [2, 1, 0]])
    metrics = measure_classes(targets, {"class": scores}, np.zeros(4, bool))
    assert (metrics["split1/top1"], metrics["split2/top1"]) == pytest.approx((100, 200 / 3))
    assert metrics["top1"] == pytest.approx((100 + 200 / 3) / 2)
    assert metrics["split2/mean_class_accuracy"] == pytest.approx(200 / 3)
    assert metrics["split1/top5"] == 100  # of three classes
    missing = np.array([True, False, False, False])
    metrics = measure_classes(targets, {"class": scores}, missing)
    assert metrics["split1/top5"] == 50
    assert (metrics["split1/top1"], metrics["split2/top1"]) == pytest.approx((50, 200 / 3))


def test_charades_two_metrics_have_two_names_and_may_differ(tmp_path):
    """The last video has no label and is behind the others, whatever its scores."""
    targets = read_targets(load_benchmark("charades_ego"), write_charades(tmp_path))
    scores = np.array([[0.9, 0.6], [0.1, 0.5], [0.8, 0.9]])
    metrics = measure_classes(targets, {"class": scores}, np.zeros(3, bool), temperature=0.1)
    assert metrics == {"mAP_raw": 100.0, "mAP_softmax": 100.0}
    hidden = measure_classes(targets, {"class": scores}, np.array([True, False, False]), temperature=0.1)
    assert hidden["mAP_raw"] == hidden["mAP_softmax"] == pytest.approx(100 * (0 + 1 / 2) / 2)
    nothing = measure_classes(targets, {"class": scores}, np.ones(3, bool), temperature=0.1)
    assert nothing == {"mAP_raw": 0.0, "mAP_softmax": 0.0}
    # The first video has less of class 0 than the second, but more of it than of class 1.
    scores = np.array([[0.5, 0.1], [0.6, 0.9], [0.8, 0.9]])
    metrics = measure_classes(targets, {"class": scores}, np.zeros(3, bool), temperature=0.1)
    assert metrics == {"mAP_raw": 75.0, "mAP_softmax": 100.0}


def test_choices_are_products_and_a_missing_clip_is_not_chosen(tmp_path):
    rng = np.random.default_rng(1)
    clips = [(f"v{k}", float(k), k + 1.0) for k in range(6)]
    targets = read_targets(load_benchmark("egomcq"), write_egomcq(tmp_path, clips, [(0, 1), (4, 2)]))
    videos, texts = units(rng, 6, 8), units(rng, 2, 8)
    scores = choice_scores(targets, videos, texts)
    assert scores[1, 2] == pytest.approx(videos[3] @ texts[1])
    videos[0], videos[5] = texts[0], texts[1]
    scores = choice_scores(targets, videos, texts)
    assert measure_choices(targets, scores, NONE_OF_6)["accuracy_intra"] == 100
    metrics = measure_choices(targets, scores, np.arange(6) == 5)
    assert (metrics["accuracy_inter"], metrics["accuracy_intra"]) == (100, 0)
    metrics = measure_choices(targets, scores, np.arange(6) == 1)  # a wrong choice of both
    assert (metrics["accuracy_inter"], metrics["accuracy_intra"]) == (0, 0)


def test_what_is_measured_may_have_a_chance_level(tmp_path):
    """The names that a benchmark's file may give are those that come out here, all of them but for parts of lists."""
    for name in ("ek100", "egtea", "charades", "egomcq"):
        (tmp_path / name).mkdir()
    clips = [(f"v{k}", float(k), k + 1.0) for k in range(6)]
    lists = {"split1": [0, 1], "split2": [0, 2, 3]}
    folders = {
        "ek100_cls": write_ek100(tmp_path / "ek100"),
        "ek100_mir": tmp_path / "ek100",
        "egtea": write_egtea(tmp_path / "egtea", lists),
        "charades_ego": write_charades(tmp_path / "charades"),
        "egomcq": write_egomcq(tmp_path / "egomcq", clips, [(0, 1), (4, 2)]),
    }
    for name, folder in folders.items():
        benchmark = load_benchmark(name)
        targets = read_targets(benchmark, folder)
        missing = np.zeros(len(targets.clip_ids), bool)
        if isinstance(targets, MultiInstanceTargets):
            alike = np.ones((len(targets.clip_ids), len(targets.texts)))
            metrics = measure_multi_instance(targets, similarity_of_matrix(alike), missing)
        elif isinstance(targets, ChoiceTargets):
            metrics = measure_choices(targets, np.ones((2, 5)), missing)
        else:
            kind = "class" if targets.parts is None else "action"
            metrics = measure_classes(targets, {kind: targets.labels.astype(float)}, missing)
        fields = benchmark.model_dump() | {"chance": dict.fromkeys(metrics, 1.0)}
        assert type(benchmark).model_validate(fields).chance.keys() == metrics.keys()
        assert {metric for metric in metrics if "split" not in metric} == set(benchmark.metric_names())
