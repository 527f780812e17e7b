"""The folder of a narration is its own: files of others are not written over, and a start that was killed goes on."""

import json
from dataclasses import asdict, replace

import pytest

from mama_ray.captioning.engines.captioner import inspect_captioner
from mama_ray.captioning.engines.protocol import FRAMES
from mama_ray.captioning.pictures.show import ShowConfig
from mama_ray.config import decisive_values
from mama_ray.data.video.settings import DecodeConfig, SceneConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.job import CaptionJob
from mama_ray.orchestration.captioning.plan import CaptionPlan
from mama_ray.orchestration.captioning.table_folder import enter as enter_table
from mama_ray.orchestration.captioning.table_folder import find_finished as find_table
from mama_ray.orchestration.narration.folder import VIDEOS_NAME, enter, find_finished, read_known
from mama_ray.orchestration.narration.job import NarrateJob
from mama_ray.orchestration.narration.planning import Planned
from mama_ray.orchestration.narration.source import WindowSource
from mama_ray.orchestration.narration.videos import VideoFacts
from mama_ray.storage.places import Place
from mama_ray.storage.small_files import MAX_JSON_BYTES
from tests.captioning.tiny_gated import write_gated

CONTENT = SceneConfig(detector="content")
PLAIN = VideoFacts("/v/plain.mp4", "plain", 9, 1, "aa", 4.0, 32)
CUT = VideoFacts("/v/cut.mp4", "cut", 9, 1, "bb", 4.0, 32, ((0.0, 2.0), (2.0, None)))
BAD = VideoFacts("/v/bad.mp4", "bad", 9, 1, trouble="longer than --decode allows")
PLANNED = Planned(table=None, num_windows=3, ids_sha256="ab", videos=(), facts=())


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> CaptionPlan:
    model = write_gated(tmp_path_factory.mktemp("gated") / "narrator")
    job = NarrateJob()
    return CaptionPlan(
        table=None,
        num_clips=3,
        ids_sha256="ab",
        source=WindowSource(1),
        output="",
        model=str(model),
        captioner=inspect_captioner(model, None),
        show=ShowConfig(FRAMES, 48, num_frames=4),
        sampling=job.sampling,
        engine=job.engine,
    )


@pytest.mark.parametrize("name", ["config.yaml", "index.html", "narration.srt", "videos.json", "videos.jsonl"])
def test_a_folder_with_files_of_others_is_refused_and_left_as_it_is(name, plan, tmp_path):
    (tmp_path / name).write_text("mine: 1")
    with pytest.raises(UserError, match=f"files of others, which would be written over: got {name} in .*another --out"):
        find_finished(NarrateJob(), plan, Place.of(tmp_path))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine: 1")]


def test_a_narration_may_lie_beside_its_videos_and_goes_on_there(plan, tmp_path):
    (tmp_path / "my_hour.mp4").write_bytes(b"video")
    job, output = NarrateJob(), Place.of(tmp_path)
    assert find_finished(job, plan, output) is None
    enter(job, plan, PLANNED, output)
    assert find_finished(job, plan, output) is None and (tmp_path / "config.yaml").exists()


def test_a_caption_table_does_not_write_over_the_config_of_another_job(plan, tmp_path):
    job, output = CaptionJob(), Place.of(tmp_path)
    (tmp_path / "config.yaml").write_text("mine: 1")
    with pytest.raises(UserError, match="files of others, which would be written over: got config.yaml in "):
        find_table(job, plan, output)
    (tmp_path / "config.yaml").unlink()
    assert find_table(job, plan, output) is None
    enter_table(job, plan, output)
    assert find_table(job, plan, output) is None


@pytest.mark.parametrize(
    ("scenes", "decode", "is_known"),
    [
        (CONTENT, DecodeConfig(), True),
        (SceneConfig(detector="adaptive"), DecodeConfig(), False),
        (SceneConfig(), DecodeConfig(), False),
        (CONTENT, DecodeConfig(max_duration_s=9.0), False),
    ],
)
def test_what_was_seen_of_videos_holds_for_the_same_settings_alone(plan, tmp_path, scenes, decode, is_known):
    output = Place.of(tmp_path)
    job = NarrateJob(scenes=CONTENT, decode=DecodeConfig())
    enter(job, plan, replace(PLANNED, facts=(PLAIN, CUT, BAD)), output)
    assert read_known(output, scenes, decode) == ({one.uri: one for one in (PLAIN, CUT, BAD)} if is_known else {})


def in_the_old_form(tmp_path, **record) -> Place:
    """A folder with what versions before videos.jsonl wrote of videos."""
    videos = [asdict(one) for one in (PLAIN, CUT, BAD)]
    (tmp_path / "videos.json").write_text(json.dumps({**record, "videos": videos}, indent=1))
    return Place.of(tmp_path)


def test_records_without_their_settings_hold_where_these_cannot_matter(tmp_path):
    output = in_the_old_form(tmp_path)
    assert read_known(output, SceneConfig(), DecodeConfig()) == {PLAIN.uri: PLAIN}
    assert read_known(output, CONTENT, DecodeConfig()) == {}


def test_what_earlier_versions_saw_of_videos_is_known_until_it_is_written_anew(plan, tmp_path):
    job = NarrateJob(scenes=CONTENT, decode=DecodeConfig())
    looked_with = {"scenes": CONTENT.model_dump(mode="json"), "decode": decisive_values(job.decode)}
    output = in_the_old_form(tmp_path, looked_with=looked_with)
    assert len(read_known(output, job.scenes, job.decode)) == 3
    enter(job, plan, replace(PLANNED, facts=(CUT,)), output)
    assert read_known(output, job.scenes, job.decode) == {CUT.uri: CUT}


def test_what_was_seen_is_known_again_however_much_it_is(plan, tmp_path):
    facts = tuple(replace(BAD, uri=f"/v/{number}.mp4", trouble="x" * 10_000) for number in range(4_000))
    job = NarrateJob(scenes=CONTENT, decode=DecodeConfig())
    enter(job, plan, replace(PLANNED, facts=facts), Place.of(tmp_path))
    assert (tmp_path / VIDEOS_NAME).stat().st_size > MAX_JSON_BYTES
    assert read_known(Place.of(tmp_path), job.scenes, job.decode) == {one.uri: one for one in facts}


@pytest.mark.parametrize("name", ["videos.json", "videos.jsonl"])
def test_what_was_seen_and_is_damaged_is_told_and_not_forgotten(plan, tmp_path, name):
    output = in_the_old_form(tmp_path)
    enter(NarrateJob(), plan, replace(PLANNED, facts=(PLAIN, CUT)), output)
    if name == "videos.json":
        (tmp_path / VIDEOS_NAME).unlink()
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-30])
    with pytest.raises(UserError, match=f"cannot be read: got .*{name} is not valid JSON.*delete the file"):
        read_known(output, SceneConfig(), DecodeConfig())
