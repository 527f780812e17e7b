"""Each start has a folder of its own: one that ends late takes nothing from the start that took over."""

import pytest

from mama_ray.storage.places import Place
from mama_ray.storage.start_folder import start_folder


@pytest.fixture(params=["disk", "s3"])
def run(request, tmp_path) -> Place:
    """A run's folder with files of other names, on each kind of storage."""
    where = str(tmp_path) if request.param == "disk" else f"s3://{request.getfixturevalue('s3_bucket')}/{tmp_path.name}"
    folder = Place.of(f"{where}/run")
    (folder / "config.json").write_whole("{}")
    (folder / ".clips-of-mine/notes").write_whole("kept")
    return folder


def test_a_start_that_lost_its_lease_leaves_the_files_of_the_one_that_took_over(run):
    with start_folder(run, ".clips") as first:
        (first / "clips.parquet").write_whole(b"first")
        second = start_folder(run, ".clips")
        place = second.__enter__()
        (place / "clips.parquet").write_whole(b"second")
    assert (place / "clips.parquet").read_bytes() == b"second"
    second.__exit__(None, None, None)
    assert {file.name for file in run.files(recursive=True)} == {"config.json", "notes"}


def test_folders_of_starts_that_were_killed_are_gone_with_the_next(run):
    (run / ".clips-0123456789ab/clips.parquet").write_whole(b"of a killed start")
    (run / ".clips/clips.parquet").write_whole(b"of a killed start of an earlier version")
    with start_folder(run, ".clips") as own:
        assert not own.exists()  # and need not be made, where nothing is written
        assert {file.name for file in run.files(recursive=True)} == {"config.json", "notes"}
