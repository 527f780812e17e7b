"""YAML as configs use it: YAML 1.2's plain values, duplicate keys refused, nothing but data.

PyYAML reads YAML 1.1, where `1e-3` is text, `no` is false and `017` is 15. The classes here carry YAML 1.2's core rules
instead: only true and false are truth values, every spelling of a number is a number, dates stay text.
"""

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from mama_ray.config.mistakes import ConfigError

# A config is a page of text. The limit keeps a wrong path (a video, a table) from being read whole.
_LARGEST_FILE_BYTES = 256 << 10
_MOST_OPEN_BRACKETS = 100
_MOST_DIGITS = 1000  # Python itself reads 4,300
_STREAMS = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")  # a shell's <(...)

_PLAIN_VALUES = {
    "tag:yaml.org,2002:null": (re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    "tag:yaml.org,2002:bool": (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    "tag:yaml.org,2002:int": (re.compile(r"^[-+]?[0-9]+(?:_[0-9]+)*$"), list("-+0123456789")),
    "tag:yaml.org,2002:float": (
        re.compile(
            r"^(?:[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+.0123456789"),
    ),
}


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's plain values, without aliases, tags and duplicate keys."""

    yaml_implicit_resolvers: dict = {}

    def compose_node(self, parent, index):
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark
            raise ConstructorError(None, None, "aliases (*name) are not allowed", mark)
        if getattr(self.peek_event(), "tag", None) is not None:
            raise ConstructorError(None, None, "tags (!name) are not allowed", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = f"the key {key_node.value!r} is not text; put it in quotes"
                raise ConstructorError(None, None, problem, key_node.start_mark)
            if key in seen:
                raise ConstructorError(None, None, f"the key {key!r} occurs twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_int(self, node):
        return int(self.construct_scalar(node))


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes text which YAML 1.1 or 1.2 would read as something else, and writes no aliases."""

    yaml_implicit_resolvers: dict = {
        first: list(rules) for first, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data):
        return True

    def represent_text(self, text):
        # PyYAML writes U+0085 and its like as line breaks of single-quoted text, which are then read as blanks.
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Dumper.add_representer(str, _Dumper.represent_text)
for _tag, (_pattern, _first) in _PLAIN_VALUES.items():
    _Loader.add_implicit_resolver(_tag, _pattern, _first)
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping; ConfigError says what is wrong with the file and on which line."""
    try:
        if _may_never_end(Path(path)):
            raise ConfigError("config file", got=f"{path}, a pipe or device", wanted="a YAML file")
        with open(path, "rb") as stream:
            content = stream.read(_LARGEST_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            "config file", got=path, wanted="a file that exists", remedy=_neighbours(Path(path))
        ) from None
    except IsADirectoryError:
        raise ConfigError(
            "config file", got=f"the folder {path}", wanted="a YAML file", remedy=_neighbours(Path(path) / "x")
        ) from None
    except OSError as error:
        raise ConfigError("config file cannot be read", got=path, remedy=error.strerror) from None
    if len(content) > _LARGEST_FILE_BYTES:
        raise ConfigError(
            "config file", got=f"{path} of more than {_LARGEST_FILE_BYTES} bytes", wanted="a YAML file of a page or two"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            "config file", got=f"{path}, no UTF-8 at byte {error.start}", wanted="YAML as UTF-8 text"
        ) from None
    return load_yaml(text, source=path)


def _may_never_end(path: Path) -> bool:
    """Tell a pipe or device from a file, a folder and nothing; a shell's <(...) ends."""
    is_usual = path.is_file() or path.is_dir() or not path.exists()
    return not is_usual and not str(path).startswith(_STREAMS)


def load_yaml(text: str, *, source: object) -> dict[str, Any]:
    """Parse YAML text that holds one mapping of names to plain values; `source` names it in errors."""
    values = _parse(text, source)
    if values is None:
        raise ConfigError(
            f"{source} is empty", wanted="a mapping of names to values", remedy="write {} for all defaults"
        )
    if not isinstance(values, dict):
        raise ConfigError(
            f"{source}",
            got=f"a {type(values).__name__}",
            wanted="a mapping of names to values, one per line as name: value",
        )
    return values


def parse_flow(text: str, *, source: object) -> Any:
    """Parse one value in YAML's flow form, e.g. `[1, 2]` or `{human: 0.5}`."""
    return _parse(text, source)


def resolve_scalar(text: str) -> bool | int | float | str | None:
    """Read one word as a plain YAML value would be read; text that is nothing else, and empty text, stays text.

    So does a number of more digits than anything has.
    """
    for tag, (pattern, _) in _PLAIN_VALUES.items():
        if text and len(text) <= _MOST_DIGITS and pattern.match(text):
            return getattr(_Loader(""), f"construct_yaml_{tag.rsplit(':', 1)[1]}")(yaml.ScalarNode(tag, text))
    return text


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Write plain values as YAML, in the order given."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _parse(text: str, source: object) -> Any:
    if _num_open_brackets(text) > _MOST_OPEN_BRACKETS:  # PyYAML takes seconds for thousands of them
        raise ConfigError(f"{source} is nested too deeply", wanted="a few levels")
    try:
        return _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{source}{where} is not the YAML a config may hold", remedy=error.problem or error.context
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML", remedy=str(error)) from None
    except (ValueError, OverflowError) as error:  # a number of thousands of digits; a character beyond Unicode
        raise ConfigError(f"{source} holds a value that cannot be read", remedy=str(error)) from None
    except RecursionError:
        raise ConfigError(f"{source} is nested too deeply", wanted="a few levels") from None


def _num_open_brackets(text: str) -> int:
    """The most brackets that are open at one place, those in quotes among them."""
    steps = ("[{".count(one) - "]}".count(one) for one in re.findall(r"[\[\]{}]", text))
    return max(itertools.accumulate(steps, initial=0))


def _neighbours(path: Path) -> str | None:
    names = sorted(str(other) for other in path.parent.glob("*.y*ml"))[:20] if path.parent.is_dir() else []
    return f"there are {', '.join(names)}" if names else None
