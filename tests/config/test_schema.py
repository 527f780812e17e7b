"""Files and overrides become configs, or one error that says where the mistake is."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mama_ray.config import Config, ConfigError, config_to_yaml, load_config, load_yaml, with_overrides
from mama_ray.errors import UserError
from tests.config.sample_configs import Job, Required, Tower


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "job.yaml"
        path.write_text(text)
        return path

    return write


def test_file_gives_values_and_what_it_leaves_out_keeps_its_default(write):
    job = load_config(Job, write("optim: {lr: 1e-2}\nsplits: [train, val]\ncaptions: {human: 1}\ncache: /x\n"))
    assert (job.optim.lr, job.optim.betas, job.splits) == (0.01, (0.9, 0.98), ("train", "val"))
    assert job.captions == {"human": 1.0}
    assert job.cache == Path("/x")


def test_nested_group_keeps_the_defaults_of_its_field_not_of_its_class(write):
    assert load_config(Job, write("tower: {width: 8}")).tower == Tower(width=8, depth=7)


def test_mapping_field_is_replaced_as_a_whole(write):
    job = load_config(Job, write("captions: {human: 1.0, generated: 2.0}"))
    assert with_overrides(job, {"captions": {"asr": 3.0}}).captions == {"asr": 3.0}


def test_config_is_frozen_and_refuses_unknown_names_in_python_too():
    with pytest.raises(ValidationError):
        Job().run = "other"
    with pytest.raises(ValidationError):
        Job(runn="x")  # ty: ignore[unknown-argument] - that is what is refused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optim: {lrr: 1}", ["optim.lrr", "did you mean optim.lr?"]),
        ("lr: 1e-3", ["did you mean optim.lr?"]),
        ("runn: a", ["runn", "did you mean run?"]),
        ("optim.lr: 3", ["optim.lr", "optim: {lr: ...}"]),
        ("optim: {lr: 0}", ["optim.lr", "got 0", "> 0"]),
        ("optim: {lr: fast}", ["optim.lr", 'got "fast"', "wanted a number"]),
        ('optim: {lr: "1e-3"}', ["optim.lr", 'got "1e-3"', "wanted a number"]),
        ("optim: {lr: true}", ["optim.lr", "got true", "wanted a number"]),
        ("optim: 3", ["optim", "got 3", "group"]),
        ("optim: null", ["optim", "got null"]),
        ("optim: {betas: [0.9]}", ["optim.betas", "got [0.9]", "at least 2"]),
        ("optim: {betas: [0.9, 1, 2]}", ["optim.betas", "at most 2"]),
        ("optim: {betas: [0.9, x]}", ["optim.betas[1]", 'got "x"', "wanted a number"]),
        ("optim: {nesterov: no}", ["optim.nesterov", 'got "no"', "true or false"]),
        ("num_frames: 1.5", ["num_frames", "got 1.5", "whole number"]),
        ("num_frames: 1e6", ["num_frames", "whole number"]),
        ("num_frames: 13", ["num_frames 13 is refused"]),
        ("run: 5", ["run", "got 5", "wanted text", "quotes"]),
        ("mode: jitterred", ["mode", "'uniform' or 'jittered'", "did you mean jittered?"]),
        ("captions: {human: no}", ["captions.human", 'got "no"', "wanted a number"]),
        ("captions: 3", ["captions", "mapping"]),
        ("splits: train", ["splits", "wanted a list"]),
        ("limit: some", ["limit", 'got "some"', "whole number or 'none'"]),
    ],
)
def test_mistake_in_a_file_names_file_path_value_and_wanted(write, text, words):
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load_config(Job, path)
    message = str(caught.value)
    assert all(word in message for word in [*words]), message
    assert "\n" not in message
    assert "pydantic" not in message
    assert str(path) in message or "num_frames 13" in message


def test_missing_value_is_named_with_both_ways_to_give_it(write):
    with pytest.raises(ConfigError, match=r"checkpoint in .* is missing; .*--checkpoint.*\(and 1 more: tower.width\)"):
        load_config(Required, write("tower: {depth: 3}"))


def test_misspelt_name_is_told_before_the_one_that_is_missing_for_it(write):
    with pytest.raises(ConfigError, match="did you mean checkpoint"):
        load_config(Required, write("chekpoint: a\ntower: {width: 3}"))


def test_config_error_is_a_user_error():
    assert issubclass(ConfigError, UserError)


def test_overrides_reach_nested_values_and_leave_the_rest():
    job = with_overrides(Job(run="mine"), {"optim.lr": 5e-4, "num_frames": 8, "tower.width": np.int64(3).item()})
    assert (job.optim.lr, job.num_frames, job.tower, job.run) == (5e-4, 8, Tower(width=3, depth=7), "mine")


def test_override_does_not_change_the_config_it_starts_from():
    job = Job()
    with_overrides(job, {"optim.lr": 5e-4})
    assert job == Job()


def test_subclasses_of_plain_numbers_are_taken_as_their_number():
    assert with_overrides(Job(), {"optim.lr": np.float64(0.25)}).optim.lr == 0.25


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"optim.lrr": 1.0}, ["optim.lrr", "did you mean optim.lr?"]),
        ({"optim.lr.x": 1.0}, ["optim.lr.x"]),
        ({"optim.lr": -1.0}, ["optim.lr", "got -1.0", "> 0"]),
        ({"optim.lr": "1e-3"}, ["optim.lr", "wanted a number"]),
        ({"num_frames": object()}, ["object"]),
        ({"captions": {3: 1.0}}, ["got 3", "text"]),
        ({"": 1}, ["config key"]),
    ],
)
def test_mistake_in_an_override_is_told_like_one_in_a_file(overrides, words):
    with pytest.raises(ConfigError) as caught:
        with_overrides(Job(), overrides)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_config_written_as_yaml_loads_back_equal(write):
    job = Job(
        run="no",
        shards="1e-3",
        captions={"human": 1e-7, "on": 1e300},
        splits=("2024-01-01", "~", "0x1f", ""),
        cache=Path("a b"),
        limit=7,
    )
    assert load_config(Job, write(config_to_yaml(job))) == job


@given(
    st.text(),
    st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False),
    st.lists(st.text(max_size=8), max_size=4),
)
def test_any_text_and_number_survive_the_round_trip(text, number, words):
    class Small(Config):
        text: str
        number: float
        words: tuple[str, ...]

    small = Small(text=text, number=number, words=tuple(words))
    assert Small.model_validate(load_yaml(config_to_yaml(small), source="round trip")) == small


def test_equal_configs_are_written_in_equal_bytes():
    assert config_to_yaml(Job(captions={"a": 1.0})) == config_to_yaml(Job(captions={"a": 1.0}))
