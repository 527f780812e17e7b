"""Results name their protocol, survive a round trip, and refuse to meet under different ones."""

from pathlib import Path

import pytest

from mama_ray.errors import UserError
from mama_ray.evaluation.benchmarks import load_benchmark_file
from mama_ray.evaluation.protocol import (
    BenchmarkConfig,
    CheckpointName,
    Protocol,
    Result,
    ResultFile,
    comparison_table,
    describe_checkpoint,
)

BENCHMARKS = Path(__file__).resolve().parents[2] / "configs/benchmark"


def make_result(**changes) -> Result:
    fields = {
        "dataset": "embedded", "split": "test", "ids_sha256": "ab" * 32, "num_videos": 400, "num_texts": 400,
        "caption_mode": "single", "video_to_text": "best_rank", "text_length": 32, "num_frames": 4,
        "sampling": "uniform", "image_size": 48, "resize": "squash", "ties": "average", "dual_softmax": False,
        "missing_rule": "counted_wrong", "num_missing": 0,
    }  # fmt: skip
    checkpoint = CheckpointName(path="runs/a", sha256="cd" * 32, step=10, selection="best val/t2v_R@1")
    metrics = {"t2v_R@1": 12.25, "v2t_R@1": 11.0}
    return Result(label="plain", protocol=Protocol(**(fields | changes)), checkpoint=checkpoint, metrics=metrics)


def test_every_benchmark_file_loads():
    found = {path.stem: load_benchmark_file(path) for path in sorted(BENCHMARKS.glob("*.yaml"))}
    loaded = {name: config for name, config in found.items() if isinstance(config, BenchmarkConfig)}
    assert set(loaded) == {"embedded", "own", "msrvtt_1ka", "didemo", "activitynet", "msvd"}
    assert loaded["didemo"].caption_mode == loaded["activitynet"].caption_mode == "paragraph"
    assert loaded["msvd"].caption_mode == "multi"
    assert all(name == config.dataset for name, config in loaded.items())


def test_a_result_file_survives_the_round_trip():
    file = ResultFile(benchmark="embedded", results=(make_result(),), duration_s=1.5)
    assert ResultFile.from_json(file.to_json()) == file


def test_a_foreign_file_is_refused():
    with pytest.raises(UserError, match="not an evaluation result"):
        ResultFile.from_json('{"benchmark": "embedded"}')


def test_one_protocol_makes_one_table():
    table = comparison_table({"plain loss": make_result(), "learned weights": make_result()})
    for expected in ("12.2", "learned weights", "400 texts x 400 videos"):
        assert expected in table


@pytest.mark.parametrize(
    ("field", "value"),
    [("dual_softmax", True), ("ids_sha256", "00" * 32), ("ties", "optimistic"), ("num_frames", 8), ("num_missing", 3)],
)
def test_different_protocols_cannot_share_a_table(field, value):
    with pytest.raises(UserError, match=field):
        comparison_table({"a": make_result(), "b": make_result(**{field: value})})


def test_a_part_of_a_benchmark_never_stands_beside_the_whole_of_it():
    whole, part = make_result(), make_result(deviation="390 of 400", num_missing=10)
    assert (whole.protocol.name, part.protocol.name) == ("embedded", "embedded (390 of 400)")
    assert "embedded (390 of 400) test" in comparison_table({"a": part})
    with pytest.raises(UserError, match="num_missing is 0 / 10; deviation is / 390 of 400"):
        comparison_table({"a": whole, "b": part})


def test_a_checkpoint_is_told_with_how_it_was_chosen():
    assert describe_checkpoint(make_result().checkpoint) == "runs/a (best val/t2v_R@1, step 10, sha256 cdcdcdcdcdcd)"
