"""What a narrate job refuses in one line before anything starts."""

import pytest

from mama_ray.config import ConfigError, parse_config
from mama_ray.errors import UserError
from mama_ray.orchestration.narration.job import NarrateJob
from mama_ray.orchestration.narration.run import narrate

HUMAN = ["--windows.cover", "human", "--human", "clips.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--windows.stride_s", "0"], "windows.stride_s"),
        (["--windows.window_s", "-1"], "windows.window_s"),
        (["--windows.cover", "uncovered"], "windows.cover uncovered needs human"),
        (["--windows.cover", "human"], "windows.cover human needs human"),
        (["--human", "clips.csv"], "human has no use with windows.cover all"),
        (["--windows.cover", "most"], "windows.cover"),
        ([*HUMAN, "--scenes.detector", "content"], "scenes.detector without a use with windows.cover human"),
        (
            [*HUMAN, "--windows.window_s", "2", "--windows.stride_s", "1"],
            "windows.window_s and windows.stride_s without",
        ),
        (["--quality.min_similarity", "0.1"], "quality.min_similarity has no use here"),
        (["--videos", "", "--model", "embedded"], "an empty name would stand for the working directory"),
        (["--timeline.subject", "they"], "timeline.subject"),
        (["--timeline.hidden_flags", "silly"], "hidden_flags"),
        (["--sampling.num_captions", "10"], "num_captions above 1 needs a temperature"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(arguments, message):
    with pytest.raises(ConfigError) as refused:
        parse_config(NarrateJob, arguments)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_videos_of_ones_own_need_a_model(tmp_path):
    with pytest.raises(UserError, match="--videos without --model; name a captioner.*--model embedded"):
        narrate(NarrateJob(videos=["my_hour.mp4"], output=str(tmp_path)))
    assert not list(tmp_path.iterdir())


def test_a_model_that_can_be_none_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="not the folder of a model"):
        narrate(NarrateJob(videos=["my_hour.mp4"], model=str(tmp_path / "other"), output=str(tmp_path / "out")))


def test_several_videos_are_named_together():
    job = parse_config(NarrateJob, ["--videos", "a.mp4", "b", "s3://bucket/c.mp4"])
    assert job.videos == ["a.mp4", "b", "s3://bucket/c.mp4"]
