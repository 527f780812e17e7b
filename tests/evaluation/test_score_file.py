"""Scores of others: arrays in the order of the annotations or as clip_ids says, and one line for what does not fit."""

import io
import struct
import zipfile

import numpy as np
import pytest

from mama_ray.errors import UserError
from mama_ray.evaluation.annotated_benchmark import AnnotatedResult, chance_warning, result_table
from mama_ray.evaluation.annotated_result import make_result
from mama_ray.evaluation.multi_instance import compute_relevance
from mama_ray.evaluation.score_file import measure_file, read_score_file
from mama_ray.evaluation.targets import ChoiceTargets, MultiInstanceTargets, read_targets
from mama_ray.orchestration.evaluation.run import load_benchmark
from tests.evaluation.small_annotations import write_egomcq, write_egtea, write_ek100


def written(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_rows_go_by_clip_ids(tmp_path):
    benchmark = load_benchmark("ek100_mir")
    targets = read_targets(benchmark, write_ek100(tmp_path))
    assert isinstance(targets, MultiInstanceTargets)
    similarity = compute_relevance(targets.videos, targets.captions)
    order = np.array([3, 0, 5, 1, 4, 2])
    names = np.array(targets.clip_ids)[order]
    moved = read_score_file(written(similarity=similarity[order], clip_ids=names), "a.npz")
    assert set(measure_file(benchmark, targets, moved).values()) == {100.0}
    del moved["clip_ids"]
    assert measure_file(benchmark, targets, moved)["mAP"] < 100


def test_features_give_what_their_cosines_give(tmp_path):
    rng = np.random.default_rng(0)
    benchmark = load_benchmark("ek100_mir")
    targets = read_targets(benchmark, write_ek100(tmp_path))
    videos, texts = rng.standard_normal((6, 3)), rng.standard_normal((6, 3))
    found = measure_file(benchmark, targets, {"video_features": videos, "text_features": texts})
    norms = np.outer(np.linalg.norm(videos, axis=1), np.linalg.norm(texts, axis=1))
    assert found == measure_file(benchmark, targets, {"similarity": videos @ texts.T / norms})
    assert found != measure_file(benchmark, targets, {"similarity": videos @ texts.T})
    videos[2] = 0
    with pytest.raises(UserError, match="video_features without a direction: got 1 of them"):
        measure_file(benchmark, targets, {"video_features": videos, "text_features": texts})


def test_the_result_names_what_it_is_of_and_what_is_at_chance(tmp_path):
    benchmark = load_benchmark("egomcq")
    clips = [(f"v{k}", float(k), k + 1.0) for k in range(6)]
    targets = read_targets(benchmark, write_egomcq(tmp_path, clips, [(0, 1), (4, 2)]))
    assert isinstance(targets, ChoiceTargets)
    metrics = measure_file(benchmark, targets, {"scores": np.eye(5)[[0, 3]]})
    result = make_result(benchmark, targets, metrics, source="a.npz", score="file")
    assert AnnotatedResult.from_json(result.to_json()) == result
    assert (result.protocol.family, result.protocol.num_texts, result.protocol.name) == ("multiple_choice", 2, "egomcq")
    assert (metrics["accuracy_inter"], metrics["accuracy_intra"]) == (100, 0)
    assert result.warning == chance_warning(benchmark, metrics)
    assert "accuracy_intra 0.00 % is at chance (20.00 %)" in result_table(result)
    whole = load_benchmark("egtea")
    targets = read_targets(whole, write_egtea(tmp_path, {"split1": [0, 1]}))
    result = make_result(whole, targets, {"top1": 1.0}, source="a.npz", num_missing=1, score="file")
    assert (result.protocol.name, result.protocol.lists) == ("egtea (1 of 2)", "split1")
    result = make_result(whole, targets, {"top1": 100.0}, source="a.npz", score="file")
    assert (result.protocol.name, result.warning) == ("egtea (3 of 106 classes)", None)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"class": np.zeros((2, 4))}, "scores of classes do not fit the benchmark: got class of 4, wanted class of 3"),
        ({"class": np.zeros((3, 3))}, "scores: got shape (3, 3), wanted (2, 3), clips by classes"),
        ({"class": np.full((2, 3), np.inf)}, "scores that are no numbers: got 6 of 6"),
        ({"scores": np.zeros((2, 3))}, "unknown arrays among the scores: got scores, wanted class and clip_ids"),
        ({"class": np.zeros((2, 3)), "clip_id": np.array(["a", "b"])}, "got clip_id, wanted class and clip_ids"),
        ({"class": np.zeros(2)}, "got shape (2,)"),
        ({"class": np.array([["a"] * 3] * 2)}, "values of type <U1"),
        (
            {"class": np.zeros((2, 3)), "clip_ids": np.array(["A-R1-Soup-1-2", "x"])},
            "1 clips without one, A-R1-Soup-3-4",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, arrays, told):
    benchmark = load_benchmark("egtea")
    targets = read_targets(benchmark, write_egtea(tmp_path, {"split1": [0, 1]}))
    with pytest.raises(UserError) as error:
        measure_file(benchmark, targets, read_score_file(written(**arrays), "a.npz"))
    assert told in str(error.value)


@pytest.mark.parametrize("name", ["clip_id", "video_features"])
def test_an_array_that_does_not_count_is_refused(tmp_path, name):
    benchmark = load_benchmark("ek100_mir")
    targets = read_targets(benchmark, write_ek100(tmp_path))
    with pytest.raises(UserError, match=f"unknown arrays among the scores: got {name}, wanted similarity and clip_ids"):
        measure_file(benchmark, targets, {"similarity": np.eye(6), name: np.zeros(6)})


def test_egomcqs_rows_are_questions_and_have_no_clip_ids(tmp_path):
    benchmark = load_benchmark("egomcq")
    clips = [(f"v{k}", float(k), k + 1.0) for k in range(6)]
    targets = read_targets(benchmark, write_egomcq(tmp_path, clips, [(0, 1), (4, 2)]))
    with pytest.raises(UserError, match="unknown arrays among the scores: got clip_ids, wanted scores"):
        measure_file(benchmark, targets, {"scores": np.zeros((2, 5)), "clip_ids": np.array(["a", "b"])})


def claiming(header: bytes, data: bytes = b"") -> bytes:
    """A file whose member has this header, which is what it claims to have."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data)
    return buffer.getvalue()


def with_member(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return buffer.getvalue()


def damaged_deflate() -> bytes:
    content = bytearray(with_member("a.npy", b"\x93NUMPY" + np.random.default_rng(0).bytes(500) * 9))
    content[40:60] = b"\xff" * 20
    return bytes(content)


def flagged(flag: int) -> bytes:
    """A file whose member's two headers have this flag."""
    content = bytearray(written(a=np.zeros(3)))
    content[6] = flag
    content[content.index(b"PK\x01\x02") + 8] = flag
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (with_member("a.txt", b"x"), "a.txt, wanted members NAME.npy"),
        (with_member("a.npy", b"x" * 99), "the magic string is not correct"),
        (damaged_deflate(), "Error -3"),
        (flagged(0x01), "encrypted"),
        (flagged(0x20), "compressed patched data"),
        (
            claiming(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000)}\n"),
            "claims 8,000,000,000,000",
        ),
        (claiming(b"{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}\n", b"x" * 8), "claims 16 bytes and has 8"),
        (claiming(b"{'descr': '<f8', (\n"), "no file of scores"),
        (claiming(b"(" * 300 + b"\n"), "no file of scores"),
    ],
)
def test_a_damaged_file_is_one_line(content, told):
    with pytest.raises(UserError, match=r"no file of scores: got a\.npz \(") as error:
        read_score_file(content, "a.npz")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_arrays_of_both_orders_are_read_as_they_were_written():
    values = np.arange(6.0).reshape(2, 3)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=values, b=np.asfortranarray(values), c=np.zeros((0, 3)), d=np.array(["x", "yz"]))
    found = read_score_file(buffer.getvalue(), "a.npz")
    np.testing.assert_array_equal(found["a"], values)
    np.testing.assert_array_equal(found["b"], values)
    assert (found["c"].shape, found["d"].tolist()) == ((0, 3), ["x", "yz"])


@pytest.mark.parametrize("content", [b"", b"\x80\x04x", written(a=np.array([None, {}], object))])
def test_what_is_no_file_of_plain_arrays_is_refused(content):
    with pytest.raises(UserError, match="no file of scores: got a.npz"):
        read_score_file(content, "a.npz")
