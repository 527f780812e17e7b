"""Videos are narrated as a whole: every window once, what is said is true, and a narration is left alone afterwards."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import srt
import webvtt

from mama_ray.captioning.engines.generation import SamplingConfig
from mama_ray.captioning.table import read_caption_files
from mama_ray.captioning.timeline import TimelineConfig
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.film import write_film
from mama_ray.data.synthetic.read_back import count_named_right
from mama_ray.data.synthetic.vocabulary import Thing
from mama_ray.data.video.windows import WindowPlanConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.job import PoolConfig
from mama_ray.orchestration.cluster import row_server
from mama_ray.orchestration.narration.job import NarrateJob
from mama_ray.orchestration.narration.run import narrate
from mama_ray.storage.places import Place
from tests.captioning.tiny_gated import write_gated
from tests.data.video.video_factory import make_audio_only, make_damaged_video

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow]

CORPUS = CorpusConfig(num_train=4, num_val=60, num_test=12)
FILM = [("val", number) for number in range(60)]
OTHER = [("test", number) for number in range(12)]


@dataclass(frozen=True)
class Narrated:
    """A job that ran, what it said, and the rows of its table."""

    job: NarrateJob
    line: str
    rows: list[dict]

    @property
    def output(self) -> Path:
        return Path(self.job.output)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_film(folder / "films", CORPUS, FILM)
    write_film(folder / "other", CORPUS, OTHER)
    (folder / "sound.mp4").write_bytes(make_audio_only())
    return folder


@pytest.fixture(scope="module")
def narrated(ray_cluster, videos, tmp_path_factory) -> Narrated:
    job = NarrateJob(
        videos=[str(videos)],
        model="embedded",
        output=str(tmp_path_factory.mktemp("narrated") / "out"),
        refresh_s=0.5,
        pool=PoolConfig(max_decode_tasks=2),
    )
    line = narrate(job)
    return Narrated(job, line, rows_of(job))


def rows_of(job: NarrateJob) -> list[dict]:
    return rows_of_folder(job.output)


def rows_of_folder(output: str | Path) -> list[dict]:
    return [row for table in read_caption_files(Place.of(output)) for row in table.to_pylist()]


@pytest.mark.promise
def test_what_is_said_of_each_second_is_true(narrated, videos):
    good = [row for row in narrated.rows if row["error"] is None]
    assert len(good) == len({row["clip_id"] for row in good}) == 72
    things = [
        Thing(**json.loads(line)["truth"]["facts"]["objects"][0])
        for name in ("films", "other")
        for line in (videos / name / "film.jsonl").read_text().splitlines()
    ]
    right = count_named_right([row["caption"] for row in good], things)
    assert all(count >= 0.9 * len(things) for count in right.values()), right


def test_a_video_without_pictures_is_a_counted_row(narrated):
    (bad,) = (row for row in narrated.rows if row["error"] is not None)
    assert "no video stream" in bad["error"] and bad["caption"] is None
    assert "1 error" in narrated.line and "3 videos" in narrated.line


def test_every_frame_was_decoded_once(narrated):
    summary = json.loads((narrated.output / "captions.json").read_text())
    assert summary["num_decoded"] == summary["num_frames"] == 72 * 8


def test_time_lines_say_what_the_table_says(narrated):
    film = next(folder for folder in (narrated.output / "videos").iterdir() if "films" in folder.name)
    lines = [json.loads(line) for line in (film / "narration.jsonl").read_text().splitlines()]
    captions = {row["clip_id"]: row["caption"] for row in narrated.rows}
    assert [name for line in lines for name in line["clip_ids"]] == [row["clip_id"] for row in narrated.rows][:60]
    assert all(line["raw"] == captions[line["clip_ids"][0]] for line in lines)
    assert lines[0]["start_s"] == 0 and lines[-1]["end_s"] == 60
    cues = list(srt.parse((film / "narration.srt").read_text()))
    assert len(cues) == len(list(webvtt.read(str(film / "narration.vtt")))) == len(lines)
    together = (narrated.output / "narration.jsonl").read_text().splitlines()
    assert len(together) > len(lines) and sum("no video stream" in line for line in together) == 1
    assert "100 %" in (narrated.output / "index.html").read_text()


def test_a_narration_that_is_done_is_told_in_another_style_without_an_engine(narrated):
    before = {path.name: path.stat().st_mtime_ns for path in narrated.output.glob("*.parquet")}
    timeline = TimelineConfig(merge=False, subject="person")
    assert "done already, 73 rows" in narrate(narrated.job.model_copy(update={"timeline": timeline}))
    assert before == {path.name: path.stat().st_mtime_ns for path in narrated.output.glob("*.parquet")}
    assert len((narrated.output / "narration.jsonl").read_text().splitlines()) == 73


def test_a_gated_narrator_says_several_things_of_overlapping_windows(ray_cluster, videos, tmp_path):
    """One video, whose files lie in the output itself; frames as they are; each decoded once though windows overlap."""
    job = NarrateJob(
        videos=[str(videos / "other")],
        model=str(write_gated(tmp_path / "gated")),
        output=str(tmp_path / "out"),
        windows=WindowPlanConfig(window_s=2.0, stride_s=1.0),
        sampling=SamplingConfig(num_captions=4, temperature=0.8, max_tokens=8),
        timeline=TimelineConfig(max_texts=3),
    )
    narrate(job)
    rows = rows_of(job)
    assert len(rows) == 12 * 4 and not any(row["error"] for row in rows)
    summary = json.loads((tmp_path / "out/captions.json").read_text())
    assert summary["num_decoded"] == summary["num_frames"] == 12 * 8
    lines = [json.loads(line) for line in (tmp_path / "out/narration.jsonl").read_text().splitlines()]
    assert sum(len(line["clip_ids"]) for line in lines) == 12
    assert 'src="../' in (tmp_path / "out/index.html").read_text()


def test_windows_that_are_served_are_narrated_as_those_of_a_table(ray_cluster, videos, tmp_path, monkeypatch):
    model, said = str(write_gated(tmp_path / "gated")), []
    for name, max_held in (("held", row_server.MAX_HELD_ROWS), ("served", 2)):
        monkeypatch.setattr(row_server, "MAX_HELD_ROWS", max_held)
        narrate(NarrateJob(videos=[str(videos / "other")], model=model, output=str(tmp_path / name)))
        rows = [(row["clip_id"], row["caption"], row["error"]) for row in rows_of_folder(tmp_path / name)]
        said.append(((tmp_path / name / "narration.jsonl").read_text(), rows))
    assert said[0] == said[1] and len(said[0][1]) == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"videos": "other"}, "holds the narration of other videos.*got videos = .*wanted videos = .*films"),
        ({"windows": WindowPlanConfig(window_s=2.0)}, "holds another narration.*windows = "),
    ],
)
def test_a_folder_of_another_narration_is_refused(narrated, videos, changes, message):
    if "videos" in changes:
        changes = {"videos": [str(videos / "other")]}
    with pytest.raises(UserError, match=message):
        narrate(narrated.job.model_copy(update=changes))


@pytest.mark.parametrize(
    ("windows", "video", "message"),
    [
        (WindowPlanConfig(window_s=0.01, max_windows=5_000), "films/film.mp4", "6000 windows in 60.0 s.*at most 5000"),
        (WindowPlanConfig(), "sound.mp4", "no video can be narrated.*no video stream"),
    ],
)
def test_what_cannot_be_narrated_is_refused_in_one_line(ray_cluster, videos, tmp_path, windows, video, message):
    job = NarrateJob(videos=[str(videos / video)], model="embedded", output=str(tmp_path), windows=windows)
    with pytest.raises(UserError, match=message) as refused:
        narrate(job)
    assert "\n" not in str(refused.value)


def test_a_job_none_of_whose_windows_could_be_narrated_fails_each_time(ray_cluster, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(make_damaged_video(num_frames=24, first_bad=1, num_bad=23))
    model = str(write_gated(tmp_path / "gated"))
    job = NarrateJob(videos=[str(tmp_path / "broken.mp4")], model=model, output=str(tmp_path / "out"))
    for _ in range(2):
        with pytest.raises(UserError, match="no window could be narrated: got 3 errors, such as"):
            narrate(job)
        assert not (tmp_path / "out/captions.json").exists()
