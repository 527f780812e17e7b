"""The command line of a job: one spelling with the file, and mistakes told in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from mama_ray.config import ConfigError, load_config, parse_config, with_overrides
from tests.config.sample_configs import Job, Required

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text("optim: {lr: 1e-2}\nnum_frames: 5\nrun: from_file\n")
    return str(path)


def test_command_line_goes_before_file_and_file_before_class(file):
    job = parse_config(Job, [file, "--num_frames", "6"])
    assert (job.num_frames, job.run, job.optim.lr, job.mode) == (6, "from_file", 0.01, "uniform")


def test_file_command_line_and_overrides_spell_a_value_alike(tmp_path):
    (tmp_path / "a.yaml").write_text("optim: {lr: 5e-4}")
    from_file = load_config(Job, tmp_path / "a.yaml")
    assert from_file == parse_config(Job, ["--optim.lr", "5e-4"]) == with_overrides(Job(), {"optim.lr": 5e-4})
    assert from_file.optim.lr == 5e-4


def test_no_arguments_give_the_defaults():
    assert parse_config(Job, []) == Job()


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--optim.lr", "5e-4"], "optim.lr", 5e-4),
        (["--optim.lr=5e-4"], "optim.lr", 5e-4),
        (["--num-frames", "7"], "num_frames", 7),
        (["--optim.betas", "0.5", "0.25"], "optim.betas", (0.5, 0.25)),
        (["--optim.betas", "[0.5, 1]"], "optim.betas", (0.5, 1.0)),
        (["--optim.nesterov"], "optim.nesterov", True),
        (["--optim.nesterov", "True"], "optim.nesterov", True),
        (["--optim.nesterov", "false"], "optim.nesterov", False),
        (["--optim.no-nesterov"], "optim.nesterov", False),
        (["--no-optim.nesterov"], "optim.nesterov", False),
        (["--run", "5"], "run", "5"),
        (["--run", "true"], "run", "true"),
        (["--run", "null"], "run", "null"),
        (["--run", ""], "run", ""),
        (["--run", "[a]"], "run", "[a]"),
        (["--run", "a b: c"], "run", "a b: c"),
        (["--run=--x=y"], "run", "--x=y"),
        (["--shards", "None"], "shards", None),
        (["--shards", "null"], "shards", None),
        (["--shards", "1e-3"], "shards", "1e-3"),
        (["--mode", "jittered"], "mode", "jittered"),
        (["--captions", "human", "0.5", "asr", "2"], "captions", {"human": 0.5, "asr": 2.0}),
        (["--captions", "{human: 0.5}"], "captions", {"human": 0.5}),
        (["--captions", "None"], "captions", None),
        (["--splits", "train", "3"], "splits", ("train", "3")),
        (["--splits", "val"], "splits", ("val",)),
        (["--splits", "[]"], "splits", ()),
        (["--splits", "[0-5].*"], "splits", ("[0-5].*",)),
        (["--splits", "[0-5].*.[qk]"], "splits", ("[0-5].*.[qk]",)),
        (["--limit", "3"], "limit", 3),
        (["--limit", "none"], "limit", "none"),
        (["--cache", "/x y"], "cache", Path("/x y")),
    ],
)
def test_every_kind_of_field_is_read_as_its_type(words, field, value):
    found = parse_config(Job, words)
    for name in field.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optim.lrr", "1"], "--optim.lrr.*did you mean optim.lr?"),
        (["--lr", "1"], "--lr.*did you mean optim.lr?"),
        (["--learning-rate", "1"], "--learning-rate, wanted one of optim, tower, run"),
        (["--optim.lr", "0"], "--optim.lr: got 0, wanted a value > 0"),
        (["--optim.lr", "-1"], "--optim.lr: got -1, wanted a value > 0"),
        (["--optim.lr", "fast"], '--optim.lr: got "fast", wanted a number'),
        (["--optim.lr"], "--optim.lr: got no value"),
        (["--optim.lr", "1", "2"], r"--optim.lr: got \[1, 2\], wanted a number"),
        (["--optim.lr", "1", "--optim.lr", "2"], "--optim.lr is given twice"),
        (["--num-frames", "1", "--num_frames", "1"], "--num_frames is given twice"),
        (["--num_frames", "1e6"], "whole number"),
        (["--num_frames", "13"], "num_frames 13 is refused"),
        (["--optim", "3"], "--optim: got 3, wanted one of its settings: --optim.lr, "),
        (["--optim.nesterov", "no"], '--optim.nesterov: got "no", wanted true or false'),
        (["--no-optim.nesterov", "1"], "says false by itself"),
        (["--no-run"], "--no-run"),
        (["--mode", "jitter"], "did you mean jittered?"),
        (["--captions", "human", "x"], '--captions.human: got "x", wanted a number'),
        (["--captions", "human"], "--captions: got .*human.*, wanted a mapping"),
        (["--captions", "{"], "--captions.*is not the YAML"),
        (["--captions", "{human}.x"], "--captions.*is not the YAML"),
        (["--splits", "[a, b"], "--splits.*is not the YAML"),
        (["--optim.betas", "0.5"], "--optim.betas"),
        (["--optim.betas", "0.5", "x"], r'--optim.betas\[1\]: got "x"'),
        (["-n", "3"], "got -n"),
        (["--"], "got --"),
        (["--run", "a", "other.yaml"], "comes first"),
        (["a.yaml"], "a.yaml, wanted a file that exists"),
    ],
)
def test_mistake_is_one_line_with_path_value_wanted_and_nearest_name(words, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config(Job, words)
    assert "\n" not in str(caught.value)


def test_second_file_is_refused(file):
    with pytest.raises(ConfigError, match="one config file and it comes first"):
        parse_config(Job, [file, file])


def test_mistake_in_the_file_is_told_with_the_file_and_one_of_the_command_line_without(file):
    with pytest.raises(ConfigError, match="^--optim.lr: got 0"):
        parse_config(Job, [file, "--optim.lr", "0"])
    Path(file).write_text("num_frames: 0")
    with pytest.raises(ConfigError, match="^num_frames in .*job.yaml: got 0"):
        parse_config(Job, [file, "--optim.lr", "1"])


def test_command_line_may_mend_a_value_of_the_file(file):
    Path(file).write_text("num_frames: 0")
    assert parse_config(Job, [file, "--num_frames", "3"]).num_frames == 3


def test_file_and_command_line_together_may_give_what_is_required(tmp_path):
    (tmp_path / "a.yaml").write_text("tower: {width: 3}")
    job = parse_config(Required, [str(tmp_path / "a.yaml"), "--checkpoint", "x"])
    assert (job.checkpoint, job.tower.width, job.tower.depth) == ("x", 3, 2)
    with pytest.raises(ConfigError, match="checkpoint.* is missing.*--checkpoint"):
        parse_config(Required, [str(tmp_path / "a.yaml")])


def _help(capsys, config_class, *words: str) -> str:
    with pytest.raises(SystemExit) as leaving:
        parse_config(config_class, words, prog="jobs/thing.py", description="Do a thing.")
    assert leaving.value.code == 0
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_help_shows_fields_with_their_docs_and_the_values_of_the_file(capsys, file):
    text = _help(capsys, Job, file, "--help")
    assert "usage: jobs/thing.py [config.yaml]" in text
    assert "Do a thing." in text
    assert "--optim.lr FLOAT Peak learning rate. (default: 0.01)" in text
    assert "--num_frames INT Frames per clip. (default: 5)" in text
    assert "--tower.depth INT Layers. (default: 7)" in text
    assert "{uniform,jittered}" in text


def test_help_shows_every_field(capsys):
    text = _help(capsys, Job, "--run", "x", "-h")
    for name in (
        "optim.lr",
        "optim.betas",
        "optim.nesterov",
        "tower.width",
        "run",
        "shards",
        "captions",
        "splits",
        "cache",
    ):
        assert f"--{name} " in text


def test_help_needs_no_required_value_and_says_which_is(capsys, tmp_path):
    (tmp_path / "a.yaml").write_text("tower: {depth: 3}")
    text = _help(capsys, Required, str(tmp_path / "a.yaml"), "--help")
    assert "--checkpoint STR What is evaluated. (required)" in text
    assert "--tower.width INT Channels. (required)" in text
    assert "--tower.depth INT Layers. (default: 3)" in text


def test_help_with_a_mistaken_file_tells_the_mistake(file):
    Path(file).write_text("runn: x")
    with pytest.raises(ConfigError, match="did you mean run?"):
        parse_config(Job, [file, "--help"])


def test_reading_a_config_imports_neither_torch_nor_ray_nor_tyro():
    program = """
import sys
from mama_ray.config import Config, parse_config
parse_config(Config, [])
print(sorted({"ray", "torch", "tyro"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_group_is_named_by_its_field_where_it_says_so():
    job = parse_config(Job, ["--store", "cloud", "--store.room_gib", "5"])
    assert (job.store.kind, job.store.room_gib) == ("cloud", 5)
    assert parse_config(Job, ["--store=cloud"]) == parse_config(Job, ["--store.kind", "cloud"])
    for words, told in (
        (["--store", "tape"], r"--store\.kind.*tape.*disk"),
        (["--store", "cloud", "disk"], r"--store\.kind"),
        (["--store"], r"one of its settings: --store\.kind, --store\.room_gib"),
        (["--store", "cloud", "--store.kind", "disk"], r"--store\.kind is given twice"),
        (["--optim", "fast"], r"one of its settings: --optim\.lr"),
    ):
        with pytest.raises(ConfigError, match=told):
            parse_config(Job, words)
