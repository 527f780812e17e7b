"""YAML that means what it seems to mean, and nothing but data."""

import pytest

from mama_ray.config import ConfigError, load_yaml
from mama_ray.config.yaml_text import parse_flow, read_yaml, resolve_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("5E4", 5e4),
        (".5", 0.5),
        ("1.", 1.0),
        ("-1", -1),
        ("+2", 2),
        ("017", 17),
        ("1_000", 1000),
        ("true", True),
        ("null", None),
        ("~", None),
        (".inf", float("inf")),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("0x1f", "0x1f"),
        ("1e", "1e"),
        ("1.2.3", "1.2.3"),
        ("--", "--"),
        ("=", "="),
    ],
)
def test_plain_value_is_read_by_yaml_12_and_alike_on_the_command_line(text, value):
    read = load_yaml(f"key: {text}", source="test")["key"]
    assert (read, type(read)) == (value, type(value))
    word = resolve_scalar(text)
    assert (word, type(word)) == (value, type(value))


def test_quoted_value_is_text():
    assert load_yaml("a: '1e-3'\nb: \"true\"", source="test") == {"a": "1e-3", "b": "true"}


def test_empty_word_of_the_command_line_is_text():
    assert resolve_scalar("") == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", ["line 3", "'a' occurs twice"]),
        ("x: {a: 1, a: 2}", ["occurs twice"]),
        ("- 1\n- 2", ["got a list", "mapping"]),
        ("just text", ["got a str", "mapping"]),
        ("", ["is empty", "{}"]),
        ("# only a remark\n", ["is empty"]),
        ("a: [1", ["line"]),
        ("a: 1\n b: 2", ["line 2"]),
        ("a: &x 1\nb: *x", ["line 2", "aliases"]),
        ("a: !!python/object/apply:os.system [x]", ["line 1", "tags"]),
        ("a: !mine 3", ["tags"]),
        ("a: !!bool abc", ["tags"]),
        ("a: !!set [1]", ["tags"]),
        ("!!map\na: 1", ["tags"]),
        ('a: "\\UFFFFFFFF"', ["cannot be read"]),
        ("1: a", ["quotes"]),
        ("null: a", ["quotes"]),
        ("? [a]\n: 1", ["not text"]),
        ("a: 1\n---\nb: 2", ["line"]),
        ("a: \x00", ["not YAML"]),
        ("a: " + "[" * 5000, ["too deeply"]),
        ("a: " + "9" * 10_000, ["cannot be read"]),
    ],
)
def test_text_that_is_no_plain_mapping_is_refused_with_its_line(text, words):
    with pytest.raises(ConfigError) as caught:
        load_yaml(text, source="job.yaml")
    message = str(caught.value)
    assert message.startswith("job.yaml")
    assert all(word in message for word in words), message
    assert len(message) < 400


def test_alias_bomb_is_refused_before_it_unfolds():
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    with pytest.raises(ConfigError, match="aliases"):
        load_yaml("\n".join(lines), source="bomb")


def test_merge_key_is_no_way_around_the_refusal_of_aliases():
    with pytest.raises(ConfigError, match="aliases"):
        load_yaml("a: &a {x: 1}\nb: {<<: *a}", source="test")


def test_flow_value_is_parsed():
    assert parse_flow("{human: 0.5, generated: 1e-1}", source="test") == {"human": 0.5, "generated": 0.1}


def test_file_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": 1}


def test_missing_file_is_refused_with_the_files_beside_it(tmp_path):
    (tmp_path / "near.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match=r"far\.yaml.*exists.*near\.yaml"):
        read_yaml(tmp_path / "far.yaml")


def test_folder_in_the_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the folder"):
        read_yaml(tmp_path)


def test_file_that_is_no_utf8_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match="no UTF-8 at byte 3"):
        read_yaml(tmp_path / "a.yaml")


def test_file_too_large_for_a_config_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"#" * ((256 << 10) + 1))
    with pytest.raises(ConfigError, match="more than 262144 bytes"):
        read_yaml(tmp_path / "a.yaml")
