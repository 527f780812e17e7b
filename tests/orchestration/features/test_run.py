"""jobs/features.py on a local Ray: the table, what a second start does, and what is refused before anything begins."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mama_ray.data.region_features.boxes import join_regions
from mama_ray.data.region_features.table import INDEX_NAME, FeatureTable
from mama_ray.errors import UserError
from mama_ray.features.extract import decode_pixels, extract_features
from mama_ray.features.frames import load_frame_encoder
from mama_ray.features.regions import load_region_detector
from mama_ray.orchestration.features.job import FeaturesJob
from mama_ray.orchestration.features.run import make_features
from mama_ray.storage.places import Place
from tests.orchestration.features.feature_runs import (
    encode,
    files_of,
    read_table,
    write_feature_shards,
    write_models,
)

pytestmark = pytest.mark.ray

SMALL = {"num_clips": 4, "frames_per_clip": 2, "num_regions": 5}


@pytest.fixture(scope="module")
def videos() -> dict[str, bytes]:
    good = {f"clip-{seed:02d}": encode(seed) for seed in range(17)}  # more than a chunk
    return good | {"short": encode(50, num_frames=3), "broken": b"no video" * 50}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, videos) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    shards = write_feature_shards(folder / "shards", videos)
    return {"shards": str(shards), **write_models(folder / "models")}


@pytest.fixture(scope="module")
def output(ray_cluster, inputs, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("table") / "features"
    line = make_features(FeaturesJob(output=str(output), **inputs, **SMALL))
    assert "(17 with features, 2 errors)" in line and line.endswith(str(output))
    return output


def test_every_clip_has_its_own_features(output, inputs, videos):
    table = FeatureTable(Place.of(output))
    encoder = load_frame_encoder(Path(inputs["frame_model"]))
    detector = load_region_detector(Path(inputs["detector"]), num_regions=5)
    for name in ("clip-00", "clip-15", "clip-16"):
        pixels = decode_pixels(videos[name], encoder, detector, num_clips=4, frames_per_clip=2)
        wanted = extract_features(pixels, encoder, detector)
        assert (wanted.width, wanted.height) == (48, 32)
        found = table.read(name, hashlib.sha256(videos[name]).hexdigest())
        np.testing.assert_allclose(found["frames"], wanted.frames, rtol=1e-4, atol=1e-5)
        joined = join_regions(wanted.regions, wanted.boxes, width=48, height=32)
        np.testing.assert_allclose(found["regions"], joined, rtol=1e-3, atol=1e-4)


def test_clips_without_features_keep_their_row_and_reason(output, videos):
    index = pq.read_table(output / INDEX_NAME).to_pylist()
    assert [row["row"] for row in index] == list(range(19))
    assert {row["clip_id"]: row["video_sha256"] for row in index} == {
        name: hashlib.sha256(video).hexdigest() for name, video in videos.items()
    }
    errors = {row["clip_id"]: row["error"] for row in index if row["error"]}
    assert set(errors) == {"short", "broken"}
    assert "fewer frames than clips: got 3 frames, limit at least 4" in errors["short"]


def test_a_second_start_does_nothing_and_another_job_is_refused(output, inputs):
    before = {path: path.stat().st_mtime_ns for path in files_of(output)}
    job = FeaturesJob(output=str(output), **inputs, **SMALL)
    assert make_features(job).startswith("done already, 19 clips")
    assert {path: path.stat().st_mtime_ns for path in files_of(output)} == before
    with pytest.raises(UserError, match=r"table of another job: got num_regions = 4"):
        make_features(job.model_copy(update={"num_regions": 4}))


@pytest.mark.parametrize("is_run", [False, True])
def test_files_of_others_are_not_written_over(ray_cluster, inputs, videos, tmp_path, is_run):
    output = write_feature_shards(tmp_path / "shards", videos)  # whose index is called as that of features
    if is_run:
        (output / "index.parquet").unlink()
        (output / "config.yaml").write_text("of a run")
    before = {path: path.read_bytes() for path in output.iterdir()}
    with pytest.raises(UserError, match=r"files of others.*(index\.parquet|config\.yaml).*another --output"):
        make_features(FeaturesJob(output=str(output), **inputs, **SMALL))
    assert {path: path.read_bytes() for path in output.iterdir()} == before


@pytest.mark.slow
@pytest.mark.promise
def test_lost_and_damaged_files_alone_are_made_again(output, inputs):
    whole, (first, second) = read_table(output), files_of(output)
    kept = second.stat().st_mtime_ns
    (output / "features.json").unlink()
    first.write_bytes(first.read_bytes()[:5000])
    make_features(FeaturesJob(output=str(output), **inputs, **SMALL))
    assert read_table(output) == whole and second.stat().st_mtime_ns == kept


@pytest.mark.slow
def test_shards_without_a_single_usable_clip_end_in_one_line(ray_cluster, inputs, tmp_path):
    shards = write_feature_shards(tmp_path / "shards", {"a": b"no video" * 50})
    with pytest.raises(UserError, match="no clip has features: got 1 errors, such as"):
        make_features(FeaturesJob(output=str(tmp_path / "t"), **(inputs | {"shards": str(shards)}), **SMALL))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shards": "nowhere"}, "no index of clips"),
        ({"split": "val"}, "no clips to look at"),
        ({"detector": "nowhere/at/all"}, "nowhere"),
        ({"num_regions": 50}, "fewer regions than asked for: got 12, wanted 50"),
    ],
)
def test_what_is_wrong_is_told_before_anything_begins(ray_cluster, inputs, tmp_path, monkeypatch, change, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words) as told:
        make_features(FeaturesJob(**({"output": str(tmp_path / "t")} | inputs | SMALL | change)))
    assert "\n" not in str(told.value)
    assert not files_of(tmp_path / "t")
