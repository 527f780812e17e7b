"""Which classes a clip has, by its name: of files, EPIC-KITCHENS-100's csv and EGTEA's lists among them, or of the
embedded corpus.

A set of classes is a list of numbers, whose first is the one that a classifier learns. Kinds are verb, noun and action;
where no file says actions, they are the pairs of first verb and first noun, numbered in the order of their names as
texts ("10:1" before "2:0"), which is that of LaViLa's and AVION's classifiers.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mama_ray.data.classes.names import ACTION, KINDS, MAX_CLASSES
from mama_ray.data.synthetic.own_facts import OWN_ATTRIBUTES
from mama_ray.data.synthetic.recognise import is_generators
from mama_ray.data.synthetic.vocabulary import SHAPES
from mama_ray.data.table_formats import read_csv
from mama_ray.errors import UserError
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.small_files import parse_json

COLUMN_PREFIX = "classes/"
_MAX_BYTES = 1 << 28
_MAX_LINE = 1 << 12
# A line of EGTEA's lists, "P21-R04-ContinentalBreakfast-291175-294945-F006979-F007088 1 1 1"; some copies quote each.
_EGTEA = re.compile(r'"?(?P<clip_id>[\w-]+-F\d+-F\d+)\s+(?P<action>[0-9]{1,6})(\s+[0-9]+)*"?')
_EPIC = {"verb": "verb_class", "noun": "all_noun_classes"}

Sets = dict[str, tuple[int, ...]]
"""The classes of a clip, by kind."""


@dataclass(frozen=True)
class ClassTable:
    """The classes of clips by their names.

    Attributes:
        sets: of each clip.
        sizes: how many classes each kind has: one more than the largest number.
        actions: the names "verb:noun" of actions that were made of pairs, by number; else ().
    """

    sets: Mapping[str, Sets]
    sizes: Mapping[str, int]
    actions: tuple[str, ...] = field(default=())

    def add_to(self, clips: pa.Table, source: str) -> pa.Table:
        """Return a table of clips with a column of numbers for each kind; UserError where a clip has no classes."""
        ids = clips["clip_id"].to_pylist()
        if missing := [clip_id for clip_id in ids if clip_id not in self.sets]:
            raise UserError(
                "clips without classes",
                got=f"{len(missing)} of {len(ids)}, among them {', '.join(missing[:3])}",
                wanted=f"each of them in {source}",
                remedy="give all files that name the clips' classes, of train and val",
            )
        for kind in self.sizes:
            column = pa.array([self.sets[clip_id].get(kind, ()) for clip_id in ids], pa.large_list(pa.int32()))
            clips = clips.append_column(COLUMN_PREFIX + kind, column)
        return clips


def read_classes(uris: Sequence[str]) -> ClassTable:
    """Read the classes that files give clips: csv with clip_id (or narration_id) and a column per kind, EPIC's csv,
    EGTEA's lists, or JSON of {clip_id: {kind: number or numbers}}; UserError for what is no such file, and for a clip
    that comes twice with different classes."""
    sets: dict[str, Sets] = {}
    for uri in uris:
        place = Place.of(uri)
        with storage_errors(uri):
            read = _json_sets if uri.endswith(".json") else _egtea_sets if _is_egtea(place) else _csv_sets
            for clip_id, found in read(place):
                if sets.setdefault(clip_id, found) != found:
                    raise UserError("a clip has two sets of classes", got=f"{clip_id} in {uri}", wanted="one set")
    return _table_of(sets, ", ".join(uris))


def classes_of_embedded(clip_ids: Sequence[str], truths: Sequence[str | None]) -> ClassTable:
    """Return the classes of the embedded corpus's clips: verbs are the motions of their objects, nouns the shapes;
    UserError for other clips."""
    sets = {}
    for clip_id, truth in zip(clip_ids, truths, strict=True):
        if not is_generators(truth):
            raise UserError(
                "no classes of the clips",
                got=f"clip {clip_id}, which is not of the embedded corpus",
                wanted="data.classes: a csv or JSON that gives their verbs and nouns",
            )
        objects = json.loads(truth or "null")["facts"]["objects"]
        sets[clip_id] = {
            "verb": tuple(dict.fromkeys(OWN_ATTRIBUTES["motion"].index(one["motion"]) for one in objects)),
            "noun": tuple(dict.fromkeys(SHAPES.index(one["shape"]) for one in objects)),
        }
    return _table_of(sets, "the embedded corpus")


def _table_of(sets: dict[str, Sets], source: str) -> ClassTable:
    if not sets:
        raise UserError("no classes of clips", got=source, wanted="a row per clip")
    actions: tuple[str, ...] = ()
    if all(found.get("verb") and found.get("noun") and ACTION not in found for found in sets.values()):
        names = {clip_id: f"{found['verb'][0]}:{found['noun'][0]}" for clip_id, found in sets.items()}
        actions = tuple(sorted(set(names.values())))
        numbers = {name: number for number, name in enumerate(actions)}
        sets = {clip_id: found | {ACTION: (numbers[names[clip_id]],)} for clip_id, found in sets.items()}
    largest = {
        kind: max((number for found in sets.values() for number in found.get(kind, ())), default=-1) for kind in KINDS
    }
    sizes = {kind: number + 1 for kind, number in largest.items() if number >= 0}
    if too_many := [kind for kind, size in sizes.items() if size > MAX_CLASSES]:
        raise UserError(f"classes of kind {too_many[0]}", got=largest[too_many[0]], wanted=f"below {MAX_CLASSES}")
    return ClassTable(sets, sizes, actions)


def _json_sets(place: Place) -> Iterator[tuple[str, Sets]]:
    content = parse_json(place.read_bytes(_MAX_BYTES), place)
    if not isinstance(content, dict) or not all(isinstance(one, dict) for one in content.values()):
        raise UserError("no classes of clips", got=f"{place}", wanted="JSON of {clip_id: {kind: numbers}}")
    for clip_id, given in content.items():
        yield clip_id, _sets_of(given, {kind: kind for kind in KINDS}, f"{place}: {clip_id}")


def _is_egtea(place: Place) -> bool:
    with place.open_stream() as stream:
        (line, *_) = stream.read(_MAX_LINE).decode("utf-8-sig", errors="replace").strip().splitlines() or [""]
    return _EGTEA.fullmatch(line.strip()) is not None


def _egtea_sets(place: Place) -> Iterator[tuple[str, Sets]]:
    """Read train_split1.txt and its kind, whose actions are numbered from 1; verbs and nouns of these files, of which
    the official evaluation knows nothing, are left."""
    lines = place.read_bytes(_MAX_BYTES).decode("utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        found = _EGTEA.fullmatch(line.strip())
        if found and int(found["action"]) > 0:
            yield found["clip_id"], {ACTION: (int(found["action"]) - 1,)}
        elif line.strip():
            wanted = "clip_id action verb noun, the action from 1"
            raise UserError("no classes of a clip", got=f"{place}: line {number}: {line.strip():.60}", wanted=wanted)


def _csv_sets(place: Place) -> Iterator[tuple[str, Sets]]:
    for number, row in enumerate(read_csv(place), start=1):
        where = f"{place}: row {number}"
        if "error" in row:
            raise UserError("a table of classes cannot be read", got=f"{where}: {row['error']}")
        clip_id = row.get("clip_id") or row.get("narration_id")
        if not clip_id:
            raise UserError(
                "no classes of clips", got=f"{where} with {', '.join(row)}", wanted="a column clip_id or narration_id"
            )
        is_epic = "verb_class" in row
        found = _sets_of(row, _EPIC if is_epic else {kind: kind for kind in KINDS}, where)
        if is_epic and row.get("noun_class"):
            first = _numbers(row["noun_class"], where)
            found["noun"] = tuple(dict.fromkeys((*first, *found.get("noun", ()))))
        yield str(clip_id), found


def _sets_of(given: Mapping[str, Any], columns: Mapping[str, str], where: str) -> Sets:
    found = {kind: _numbers(given[name], where) for kind, name in columns.items() if given.get(name) not in (None, "")}
    if not found:
        raise UserError("no classes of a clip", got=where, wanted=f"one of {', '.join(columns.values())}")
    return found


def _numbers(value: Any, where: str) -> tuple[int, ...]:
    """Return the numbers of a cell: one, or a list in brackets."""
    if isinstance(value, str):
        texts: Iterable[Any] = value.strip().strip("[]").replace(",", " ").split()
    else:
        texts = value if isinstance(value, list) else [value]
    numbers = []
    for text in texts:
        if isinstance(text, bool) or not str(text).isdecimal() or len(str(text)) > 9:
            raise UserError(
                "a class is no number", got=f"{where}: {value!r:.60}", wanted="0 or more, or a list of such"
            )
        numbers.append(int(text))
    return tuple(dict.fromkeys(numbers))
