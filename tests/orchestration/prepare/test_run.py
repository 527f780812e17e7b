"""The prepare job from end to end: good clips in, bad ones named, a killed one goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mama_ray.config import load_config
from mama_ray.data.clip import clip_from_json
from mama_ray.data.index import read_index, select_split
from mama_ray.data.reading import read_clip_bytes
from mama_ray.data.shard import scan_shard
from mama_ray.data.shard_check import check_shards
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.run import run
from mama_ray.storage.places import Place
from tests.data.video.video_factory import make_empty_video, make_video

REPOSITORY = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def video() -> bytes:
    return make_video(num_frames=8, width=48, height=48, fps=4)


@pytest.fixture
def source(tmp_path, video) -> Path:
    """A folder of 10 good videos and their annotations."""
    (tmp_path / "videos").mkdir()
    rows = []
    for number in range(10):
        (tmp_path / "videos" / f"v{number}.mp4").write_bytes(video)
        rows.append({"video": f"v{number}.mp4", "caption": f"text {number}", "split": "val" if number == 3 else None})
    write_rows(tmp_path, rows)
    return tmp_path


def write_rows(folder: Path, rows: list[dict]) -> None:
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def job(folder: Path, **options) -> PrepareJob:
    places = {name: str(folder / name) for name in ("videos", "output")}
    return PrepareJob(**{**places, "annotations": str(folder / "a.jsonl"), "clips_per_shard": 4, **options})


def quarantine(folder: Path) -> dict[str, str]:
    rows = pq.read_table(folder / "output" / "quarantine.parquet").to_pylist()
    return {row["clip_id"] or row["video"] or "": row["reason"] for row in rows}


def index_rows(folder: Path) -> list[dict]:
    return read_index(Place.of(folder)).to_pylist()


def test_good_videos_become_shards_and_an_index(source, video, ray_cluster):
    line = run(job(source))
    output = source / "output"
    assert line == f"10 clips in 3 shards: index at {output}/index.parquet"
    assert sorted(path.name for path in output.iterdir()) == [
        "clips-000000.tar",
        "clips-000001.tar",
        "clips-000002.tar",
        "index.parquet",
        "prepare.json",
        "quarantine.csv",
        "quarantine.parquet",
    ]
    table = read_index(Place.of(output))
    check_shards(Place.of(output), table)
    assert select_split(table, "val")["clip_id"].to_pylist() == ["v3"]
    for row in table.to_pylist():
        place = (row["shard"], row["offset"], row["num_bytes"])
        assert read_clip_bytes(Place.of(output), *place, sha256=row["sha256"]) == video
        assert (row["width"], row["height"], row["codec"], row["duration_s"]) == (48, 48, "h264", 2.0)
    with Place.of(output / "clips-000000.tar").open_stream() as stream:
        clips = [clip_from_json(sample.texts["json"]) for sample in scan_shard(stream)]
    assert [clip.captions[0].text for clip in clips] == [f"text {number}" for number in range(4)]


def test_the_same_inputs_are_not_prepared_again_and_others_are_refused(source, ray_cluster):
    run(job(source))
    before = {path: path.stat().st_mtime_ns for path in (source / "output").iterdir()}
    assert run(job(source)).startswith("already prepared")
    assert {path: path.stat().st_mtime_ns for path in (source / "output").iterdir()} == before
    with pytest.raises(UserError, match=r"output already holds clips of other inputs.*choose another output"):
        run(job(source, clips_per_shard=5))
    (source / "output" / "prepare.json").unlink()
    with pytest.raises(UserError, match=r"already holds clips of other inputs"):
        run(job(source))


def test_every_kind_of_bad_row_is_quarantined_with_its_reason(source, video, ray_cluster):
    videos = source / "videos"
    (videos / "zero.mp4").write_bytes(make_empty_video())
    (videos / "empty.mp4").write_bytes(b"")
    (videos / "text.mp4").write_bytes(b"<html>not found</html>" * 50)
    (videos / "cut.mp4").write_bytes(video[:600])
    rows = [
        {"video": "v0.mp4"},
        {"video": "gone.mp4"},
        {"video": "v1.mp4", "start_s": 1.5, "end_s": 1.0, "clip_id": "backwards"},
        {"video": "v1.mp4", "clip_id": "v0"},
        {"video": "v1.mp4", "clip_id": "no spaces"},
        {"video": "v1.mp4", "clip_id": "late", "start_s": 50},
        {"video": "zero.mp4"},
        {"video": "empty.mp4"},
        {"video": "text.mp4"},
        {"video": "cut.mp4"},
    ]
    write_rows(source, rows)
    line = run(job(source))
    assert line.startswith("1 clips in 1 shards, 1 without caption, 9 quarantined (")
    reasons = quarantine(source)
    assert reasons["gone"] == "no such video file"
    assert "end_s: got 1.0, wanted more than start_s = 1.5" in reasons["backwards"]
    assert "duplicate clip_id" in reasons["v0"]
    assert "clip_id: got 'no spaces'" in reasons["no spaces"]
    assert "starts after the end of the video" in reasons["late"]
    assert "no video stream" in reasons["zero"]
    assert "empty" in reasons["empty"]
    assert "not a readable video" in reasons["text"]
    assert reasons["cut"]
    assert [row["clip_id"] for row in index_rows(source / "output")] == ["v0"]


def test_a_part_of_a_video_is_cut_out(source, ray_cluster):
    write_rows(source, [{"video": "v0.mp4", "start_s": 0.5, "end_s": 1.5, "clip_id": "part"}])
    run(job(source))
    (row,) = index_rows(source / "output")
    assert (row["start_s"], row["end_s"], row["extension"]) == (0.5, 1.5, "mp4")
    assert row["duration_s"] == pytest.approx(1.0, abs=0.01)
    data = read_clip_bytes(Place.of(source / "output"), row["shard"], row["offset"], row["num_bytes"])
    assert VideoDecoder(data).num_frames == 4


def test_too_many_bad_clips_fail_and_the_finished_shards_serve_a_larger_limit(source, ray_cluster):
    (source / "videos" / "v0.mp4").unlink()
    with pytest.raises(UserError, match=r"too many clips were refused.*1 no such video file.*at most 0"):
        run(job(source, max_quarantined=0))
    assert not (source / "output" / "index.parquet").exists()
    before = (source / "output" / "clips-000001.tar").stat().st_mtime_ns
    assert run(job(source, max_quarantined=1)).startswith("9 clips in 3 shards, 1 quarantined")
    assert (source / "output" / "clips-000001.tar").stat().st_mtime_ns == before


def test_no_good_clip_at_all_is_an_error_that_leaves_the_reasons(source, ray_cluster):
    write_rows(source, [{"video": "gone.mp4"}, {"video": "v0.mp4", "start_s": -1}])
    with pytest.raises(UserError, match=r"no clip is usable: .*no such video file"):
        run(job(source))
    assert len(quarantine(source)) == 2
    assert sorted(path.name for path in (source / "output").iterdir()) == ["quarantine.csv", "quarantine.parquet"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"videos": "none"}, "no such folder of videos"),
        ({"videos": "void"}, "the folder of videos is empty"),
        ({"annotations": "none.csv"}, "no such annotation file"),
        ({"annotations": "empty.csv"}, "annotations have no rows"),
        ({"annotations": "a.xlsx"}, "unknown format"),
        ({"annotations": "table.csv"}, "annotations are separated by semicolons"),
        ({"videos": None}, "prepare lacks --videos"),
        ({"shards": "videos"}, "prepare takes videos with annotations, or shards"),
        ({"output": "a.jsonl/sub"}, "storage is not writable"),
        ({"output": "nowhere://x"}, "storage URI"),
        ({"output": "tars"}, "output already holds clips of other inputs"),
    ],
)
def test_bad_inputs_are_one_clear_error(source, ray_cluster, change, message):
    (source / "void").mkdir()
    (source / "tars").mkdir()
    (source / "tars" / "mine.tar").touch()
    (source / "empty.csv").touch()
    (source / "a.xlsx").touch()
    (source / "table.csv").write_text("video;caption\nv0.mp4;x\n")
    change = {name: str(source / value) if value and "://" not in value else value for name, value in change.items()}
    with pytest.raises(UserError, match=message):
        run(job(source, **change))


def start_prepare(source: Path, *arguments: str, output: str = "output", **environment: str) -> subprocess.Popen:
    """Start the job's program."""
    command = [sys.executable, "jobs/prepare.py", "--videos", str(source / "videos"), "--annotations"]
    command += [str(source / "a.jsonl"), "--output", str(source / output), "--clips-per-shard", "4", *arguments]
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ray_address(ray_cluster) -> str:
    return ray_cluster.get_runtime_context().gcs_address


def test_a_killed_prepare_goes_on_with_its_finished_shards(source, ray_cluster):
    process = start_prepare(source, RAY_ADDRESS=ray_address(ray_cluster))
    parts = source / "output" / ".prepare" / "parts"
    deadline = time.monotonic() + 120
    while not list(parts.glob("*.parquet")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until_quiet(source / "output")
    finished = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.parquet")}
    if not parts.exists():
        pytest.skip("the job was done before it could be killed")
    assert not (source / "output" / "index.parquet").exists()
    assert run(job(source)).startswith("10 clips in 3 shards: index at")
    assert [row["clip_id"] for row in index_rows(source / "output")] == [f"v{number}" for number in range(10)]
    assert finished
    assert not list((source / "output").rglob("*.tmp"))


def wait_until_quiet(folder: Path) -> None:
    """Ray ends the tasks of a killed driver within a second or so."""
    state = None
    while state != (state := {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}):
        time.sleep(1.0)


def test_a_half_written_shard_is_made_again(source, ray_cluster):
    run(job(source, max_quarantined=0))
    whole = (source / "output" / "clips-000001.tar").read_bytes()
    (source / "videos" / "v0.mp4").unlink()
    (source / "again").mkdir()
    with pytest.raises(UserError, match="too many clips"):  # leaves the work folder with all parts
        run(job(source, max_quarantined=0, output=str(source / "again")))
    (source / "again" / "clips-000001.tar").write_bytes(whole[:1000])
    (source / "again" / "clips-000002.tar.0123abcd.tmp").write_bytes(whole[:1000])  # of a job that was killed
    run(job(source, output=str(source / "again")))
    assert not list((source / "again").glob("*.tmp"))
    assert (source / "again" / "clips-000001.tar").read_bytes() == whole


@pytest.mark.slow
def test_the_job_ends_with_a_status_and_one_clear_line(source, ray_cluster):
    address = ray_address(ray_cluster)
    output, errors = start_prepare(source, RAY_ADDRESS=address).communicate(timeout=200)
    assert output.splitlines()[-1].startswith("10 clips in 3 shards: index at "), errors
    (source / "a.jsonl").write_text('{"video": "v0.mp4", "capton": "x"}\n')
    process = start_prepare(source, output="other", RAY_ADDRESS=address)
    assert "capton (meant caption?)" in process.communicate(timeout=200)[1].splitlines()[-1]
    assert process.returncode == 1
    process = start_prepare(source, "--clips-per-shard", "0", RAY_ADDRESS=address)
    assert "clips_per_shard" in process.communicate(timeout=200)[1]
    assert process.returncode == 2


def test_a_full_storage_is_one_clear_error_and_nothing_half_written(source, small_disk, ray_cluster):
    rows = [{"video": "v0.mp4", "clip_id": f"c{number}", "topic": "x" * 2000} for number in range(200)]
    write_rows(source, rows)
    output = small_disk("256k") / "output"
    with pytest.raises(UserError, match=r"no space left on the storage.*start again"):
        run(job(source, output=str(output), clips_per_shard=50))
    assert not (output / "index.parquet").exists()
    for shard in output.glob("*.tar"):
        with Place.of(shard).open_stream() as stream:
            assert list(scan_shard(stream))  # whole, or not there


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs/prepare").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_file_loads(path):
    assert isinstance(load_config(PrepareJob, path), PrepareJob)
