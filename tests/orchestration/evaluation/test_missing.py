"""A corpus that is really prepared, of which prepare refuses clips, and what its evaluation says of them."""

from pathlib import Path

import pytest

from mama_ray.orchestration.evaluation.job import EvaluateJob
from mama_ray.orchestration.evaluation.run import evaluate
from tests.orchestration.evaluation import test_run
from tests.orchestration.prepare.in_process import prepare


def prepare_folder(folder: Path) -> Path:
    """Shards of seven videos with two captions each, of which the fourth is damaged and one row has no such file."""
    (folder / "videos").mkdir(parents=True)
    data = [*test_run.videos(3), b"no video at all" * 20, *test_run.videos(7)[4:]]
    for number, video in enumerate(data):
        (folder / f"videos/v{number}.mp4").write_bytes(video)
    rows = [f"v{n}.mp4,thing {n} told {k},test" for n in range(8) for k in range(2)]
    (folder / "clips.csv").write_text("\n".join(["video,caption,split", *rows]))
    where = {"videos": str(folder / "videos"), "annotations": str(folder / "clips.csv")}
    prepare(**where, output=str(folder / "shards"))
    return folder / "shards"


@pytest.mark.ray
@pytest.mark.parametrize(
    ("fields", "name", "num_videos", "num_texts"),
    [
        ({}, "small (6 of 8)", 8, 14),
        ({"num_clips": 10, "num_captions": 20}, "small (6 of 10)", 10, 20),
        ({"missing": "excluded"}, "small (6 of 8)", 6, 12),
    ],
)
def test_clips_that_prepare_refused_are_missing_clips(
    ray_cluster, model_folder, tmp_path, fields, name, num_videos, num_texts
):
    shards = prepare_folder(tmp_path)
    benchmark = test_run.write_benchmark(tmp_path, caption_mode="multi", dual_softmax="off", **fields)
    job = EvaluateJob(checkpoint=str(model_folder), shards=str(shards), output=str(tmp_path), benchmark=benchmark)
    found = evaluate(job)
    (result,) = found.file.results
    protocol = result.protocol
    assert found.file.benchmark == protocol.name == name
    assert (protocol.num_videos, protocol.num_texts) == (num_videos, num_texts)
    assert protocol.num_missing == fields.get("num_clips", 8) - 6
    for way, num_found, num_asked, last in (("v2t", 6, num_videos, num_texts), ("t2v", 12, num_texts, num_videos)):
        assert result.metrics[f"{way}_R@5"] <= 100 * num_found / num_asked
        num_lost = num_asked - num_found
        found_ranks = num_asked * result.metrics[f"{way}_mean_rank"] - num_lost * last
        assert num_found <= found_ranks <= num_found * last
    assert [clip["clip_id"] for clip in found.file.missing] == ["v3", "v7"]
    assert name in found.tables()
