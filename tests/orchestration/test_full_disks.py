"""Whole jobs on a disk that becomes full: one line that names it, nothing half-written, and when there is room the same
command comes to the result of an undisturbed one.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mama_ray.config import with_overrides
from mama_ray.data.index import read_index
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.job import CaptionJob
from mama_ray.orchestration.captioning.run import caption
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.run import run as prepare
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import train
from mama_ray.storage.places import Place
from tests.data.video.video_factory import make_video
from tests.orchestration.captioning.captioning_runs import read_captions
from tests.orchestration.runs.training_runs import SETTINGS, outcome, start_training, wait_until, write_shards
from tests.processes import kill_tree
from tests.storage.small_disks import remount

pytestmark = [pytest.mark.ray, pytest.mark.slow]
promise = pytest.mark.promise

NUM_VIDEOS = 40


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("corpus") / "shards")


def room_of(folder: Path) -> int:
    """Return what a folder takes on its disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def hashes_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of a folder's shards by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.tar")}


def goes_on_when_there_is_room(
    work: Callable[[Path], object], whole: Path, disk_of: Callable[[str], Path], *, share: float
) -> Path:
    """Do the work without a limit, then on a disk with room for a share of it, then there with room; return the disk.

    whole: where the work is done first.
    """
    work(whole)
    disk = disk_of(str(int(room_of(whole) * share) // 4096 * 4096))
    with pytest.raises(UserError) as told:
        work(disk)
    assert str(told.value).startswith(f"no space left on the storage: got {disk}"), told.value
    assert "start again with the same arguments" in str(told.value)
    remount(disk, "size=1g")
    work(disk)
    left = [path.name for path in disk.rglob("*") if path.name.endswith(".tmp") or path.name.startswith(".staging")]
    assert left == []
    return disk


@pytest.mark.parametrize("share", [0.3, pytest.param(0.7, marks=promise), 0.97])
def test_prepare_goes_on_from_a_full_disk(share, ray_cluster, small_disk, tmp_path):
    (tmp_path / "videos").mkdir()
    for number in range(NUM_VIDEOS):
        video = make_video(num_frames=6 + number % 5, width=96, height=96, fps=4)
        (tmp_path / f"videos/v{number}.mp4").write_bytes(video)
    rows = [{"video": f"v{number}.mp4", "caption": f"text {number}"} for number in range(NUM_VIDEOS)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    places = {"videos": str(tmp_path / "videos"), "annotations": str(tmp_path / "a.jsonl")}

    def work(folder: Path) -> None:
        prepare(PrepareJob(**places, output=f"{folder}/shards", clips_per_shard=8))

    disk = goes_on_when_there_is_room(work, tmp_path / "whole", small_disk, share=share)
    made, wanted = disk / "shards", tmp_path / "whole/shards"
    assert hashes_of(made) == hashes_of(wanted) and len(hashes_of(made)) == NUM_VIDEOS // 8
    assert read_index(Place.of(made)).equals(read_index(Place.of(wanted)))


@pytest.mark.parametrize("share", [0.3, pytest.param(0.8, marks=promise)])
def test_a_training_run_goes_on_from_a_full_disk(share, ray_cluster, shards, small_disk, tmp_path):
    def work(folder: Path) -> None:
        base = TrainJob.model_validate(SETTINGS)
        train(with_overrides(base, {"shards": str(shards), "storage": str(folder), "run": "run", "num_workers": 1}))

    disk = goes_on_when_there_is_room(work, tmp_path / "whole", small_disk, share=share)
    assert outcome(disk, "run") == outcome(tmp_path / "whole", "run")


@pytest.mark.vllm
def test_a_caption_table_goes_on_from_a_full_disk(ray_cluster, shards, small_disk, tmp_path):
    def work(folder: Path) -> None:
        pool = {"min_size": 1, "max_size": 1}
        caption(CaptionJob.model_validate({"shards": str(shards), "output": f"{folder}/table", "pool": pool}))

    disk = goes_on_when_there_is_room(work, tmp_path / "whole", small_disk, share=0.4)
    assert read_captions(disk / "table") == read_captions(tmp_path / "whole/table")


def test_training_whose_folder_is_taken_away_ends_and_makes_no_other(shards, tmp_path):
    process = start_training(tmp_path, shards, "run", num_workers=1, num_epochs=500.0)
    try:
        wait_until(lambda: any((tmp_path / "run/tensorboard").glob("*")) or process.poll() is not None)
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        assert process.wait(timeout=60) == 1
    finally:
        if process.poll() is None:
            kill_tree(process)
    last = (tmp_path / "run.log").read_text().splitlines()[-1]
    assert last.startswith(("error: the folder of this run was taken away", "error: a file of the storage is missing"))
    assert "put it back" in last and not (tmp_path / "run").exists()
