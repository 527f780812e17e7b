"""Shards as people really bring them: dotted names, blank captions, odd JSON, compressed and damaged archives."""

import gzip
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from mama_ray.data.index import read_index
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.foreign import list_shards
from mama_ray.orchestration.prepare.plan import pairs_by_an_older_rule
from mama_ray.storage.places import Place
from tests.data.shard_factory import tar_bytes
from tests.orchestration.prepare.in_process import DONE, captions, prepare, reasons


def write(folder: Path, name: str, members: list[tuple[str, bytes]]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(tar_bytes(members))
    return folder


def test_a_caption_of_another_video_is_never_taken(tmp_path, mp4):
    write(
        tmp_path,
        "a.tar",
        [
            ("lecture_1.0.json", b'{"caption": "caption of lecture 1.0", "status": "failed_to_download"}'),
            ("lecture_1.1.json", b'{"caption": "caption of lecture 1.1"}'),
            ("lecture_1.1.mp4", mp4),
            ("walk.10s.txt", b"first ten seconds"),
            ("walk.20s.mp4", mp4),
            ("walk.20s.txt", b"from ten to twenty seconds"),
            ("k.mp4", mp4),
            ("k.info.json", b'{"labels": 1}'),
            ("k.mp4.json", b'{"caption": "of the file"}'),
            ("k.json", b'{"caption": "the caption"}'),
            ("two.left.mp4", mp4),
            ("two.right.mp4", mp4),
            ("two.txt", b"of which?"),
            ("same.mkv", mp4),
            ("same.mp4", mp4),
        ],
    )
    line = prepare(shards=str(tmp_path))
    assert captions(tmp_path) == {
        "lecture_1.1": ["caption of lecture 1.1"],
        "walk.20s": ["from ten to twenty seconds"],
        "k": ["the caption"],
        "same": [],
        "same.mp4": [],
    }
    assert line.startswith("5 clips in 1 shards, 2 without caption, 4 quarantined (")
    assert "2 annotations without a video: lecture_1.0.json; 2 annotations that may be of another video" in line


def test_captions_that_say_nothing_are_none(tmp_path, mp4):
    texts = [
        {"txt": b""},
        {"txt": b" ", "json": b'{"caption": "good words"}'},
        {"json": b'{"caption": NaN}'},
        {"txt": b"fine"},
        {"txt": b"nan\n"},
        {"json": b'{"caption": null, "text": "N/A", "captions": ["", "None", {"text": "NULL"}]}'},
        {"json": b'{"captions": ["one", " ", {"text": "two", "source": "asr"}]}'},
    ]
    members = []
    for number, fields in enumerate(texts):
        members.append((f"{number}.mp4", mp4))
        members += [(f"{number}.{extension}", data) for extension, data in fields.items()]
    write(tmp_path, "a.tar", members)
    assert prepare(shards=str(tmp_path)).startswith("7 clips in 1 shards, 4 without caption: index at")
    expected = {"0": [], "1": ["good words"], "2": [], "3": ["fine"], "4": [], "5": [], "6": ["one", "two"]}
    assert captions(tmp_path) == expected


BAD_JSON = [
    b'{"caption": "lone surrogate \\ud800"}',
    b'{"caption": "a", "topic": "\\udfff"}',
    b'{"caption": "a", "video_id": "\\ud83d"}',
    b'{"caption": 3}',
    b'{"caption": {"en": "a"}}',
    b'{"captions": [["a"]]}',
    b'{"caption": "a", "split": "holdout"}',
    b'{"caption": ' + b"9" * 5000 + b"}",
    b"[" * 100_000,
    b"caf\xe9",
    b'"text"',
    b'{"clip_id": "x", "video_id": "v", "start_s": ' + b"1" * 400 + b', "end_s": 1, "captions": 7}',
]
GOOD_JSON = [
    b'{"caption": "a", "split": "Validation"}',
    b'{"caption": "a", "number": ' + b"1" * 400 + b', "topic": 3, "video_id": ["x"]}',
    b'{"clip_id": "x", "video_id": "v", "start_s": ' + b"1" * 400 + b', "end_s": 1, "captions": ["a"]}',
    b'{"clip_id": "y", "video_id": "w", "start_s": 0, "end_s": 1, "captions": ["a"], "topic": 3, "truth": [1]}',
]


def test_one_bad_member_does_not_fail_the_others(tmp_path, mp4):
    members = []
    for number, data in enumerate([*BAD_JSON, *GOOD_JSON]):
        members += [(f"{number:02d}.mp4", mp4), (f"{number:02d}.json", data)]
    name = "caf\udce9"
    members += [(f"{name}.mp4", mp4), (f"{name}.txt", b"a cup"), (f"{'n' * 300}.mp4", mp4), ("bad.mp4", b"no video")]
    write(tmp_path, "a.tar", members)
    assert prepare(shards=str(tmp_path)).startswith("6 clips in 1 shards, 1 without caption, 13 quarantined (")
    rows = read_index(Place.of(tmp_path)).to_pylist()
    assert sum([caption["text"] for caption in row["captions"]] == ["a"] for row in rows) == len(GOOD_JSON)
    assert captions(tmp_path)["caf\\xe9"] == ["a cup"]
    assert [row["split"] for row in rows].count("val") == 1
    found = reasons(tmp_path)
    assert len(found) == len(BAD_JSON) + 1 and all(found)


def test_compressed_shards_are_named_beside_plain_ones_and_under_false_names(tmp_path, mp4):
    write(tmp_path, "a.tar", [("a.mp4", mp4)])
    plain = tar_bytes([("b.mp4", mp4)])
    for name in ("b.tar.gz", "c.TGZ", "d.tar.zst"):
        (tmp_path / name).write_bytes(gzip.compress(plain))
    with pytest.raises(UserError, match=r"compressed shards: got 3 beside 1 plain ones: b.tar.gz, c.TGZ, d.tar.zst"):
        prepare(shards=str(tmp_path))
    assert prepare(shards=str(tmp_path), damaged_shards="quarantine").startswith("1 clips in 1 shards, 1 without")
    assert all("compressed by gzip: decompress it" in reason for reason in reasons(tmp_path))
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "b.tar").write_bytes(gzip.compress(plain))
    with pytest.raises(UserError, match=r"1 shards are damaged: b.tar \(compressed by gzip: decompress it"):
        prepare(shards=str(tmp_path / "only"))


def test_a_member_of_4_exabytes_is_damage_that_is_told_at_once(tmp_path):
    member = tarfile.TarInfo("a.mp4")
    member.size = 1 << 62
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(10240 - 512))
    with pytest.raises(UserError, match="member a.mp4 claims 4611686018427387904 bytes, the shard has 10240"):
        prepare(shards=str(tmp_path))


def test_new_and_mended_shards_are_taken_in_and_no_other_is_read_again(tmp_path, mp4):
    folder = write(tmp_path / "shards", "b.tar", [("1.mp4", mp4), ("1.txt", b"one")])
    whole = tar_bytes([("2.mp4", mp4), ("2.txt", b"two"), ("bad.mp4", b"no video")])
    (folder / "c.tar").write_bytes(whole[:1000])
    options = {"shards": str(folder), "damaged_shards": "quarantine"}
    assert prepare(**options).startswith("1 clips in 1 shards, 1 quarantined (1 truncated or damaged")
    assert prepare(**options) == DONE
    index = read_index(Place.of(folder))
    (folder / "c.tar").write_bytes(whole)
    write(folder, "a.tar", [("1.mp4", mp4), ("1.txt", b"another one")])
    hidden = tmp_path / "b.tar"
    shutil.move(folder / "b.tar", hidden)
    (folder / "b.tar").write_bytes(b"x" * hidden.stat().st_size)  # read again, it would be damaged
    assert prepare(**options).startswith("3 clips in 3 shards, 1 quarantined (1 not a readable video")
    shutil.move(hidden, folder / "b.tar")
    rows = read_index(Place.of(folder)).to_pylist()
    assert [row["shard"] for row in rows] == ["a.tar", "b.tar", "c.tar"]
    assert rows[1] == index.to_pylist()[0]  # with its clip_id: others refer to it
    assert [row["captions"][0]["text"] for row in rows] == ["another one", "one", "two"]
    assert len({row["clip_id"] for row in rows}) == 3
    assert prepare(**options) == DONE
    (folder / "b.tar").unlink()
    with pytest.raises(UserError, match=r"shards that are gone or have another size: b.tar"):
        prepare(**options)


def test_a_mended_shard_is_read_again_after_a_refusal_and_the_others_are_not(tmp_path, mp4):
    whole = tar_bytes([("2.mp4", mp4)])
    folder = write(tmp_path, "a.tar", [("1.mp4", mp4)])
    (folder / "b.tar").write_bytes(b"x" * len(whole))  # of the same size
    with pytest.raises(UserError, match="1 shards are damaged: b.tar"):
        prepare(shards=str(folder))
    parts = {path: path.stat().st_mtime_ns for path in (folder / ".prepare/parts").glob("*.parquet")}
    (folder / "b.tar").write_bytes(whole)
    (first,) = [shard for shard in list_shards(str(folder)) if shard.name == "a.tar"]
    assert prepare(shards=str(folder)).startswith("2 clips in 2 shards, 2 without caption: index at")
    assert any(path.stem == first.part_name for path in parts)


def test_a_summary_of_an_earlier_version_is_found_as_finished(tmp_path, mp4):
    write(tmp_path, "a.tar", [("1.mp4", mp4)])
    prepare(shards=str(tmp_path))
    summary = json.loads((tmp_path / "prepare.json").read_text())
    summary["inputs"] = {name: summary["inputs"][name] for name in ("sha256", "from")}
    assert not pairs_by_an_older_rule(Place.of(tmp_path))
    (tmp_path / "prepare.json").write_text(json.dumps(summary))
    assert prepare(shards=str(tmp_path)) == DONE
    assert pairs_by_an_older_rule(Place.of(tmp_path))


def test_a_shard_whose_own_name_is_no_utf_8_is_told(tmp_path, mp4):
    write(tmp_path, "a.tar", [("1.mp4", mp4)])
    shutil.copyfile(tmp_path / "a.tar", os.fsencode(tmp_path) + b"/caf\xe9.tar")
    with pytest.raises(UserError, match=r"names of shards are not UTF-8: got 'caf.udce9.tar'; rename them"):
        prepare(shards=str(tmp_path))


def test_a_split_that_is_not_known_is_never_taken_for_the_default_unless_it_is_said(tmp_path, mp4):
    members = [("1.mp4", mp4), ("1.json", b'{"split": "holdout"}'), ("2.mp4", mp4), ("2.json", b'{"split": "Testing"}')]
    for name in ("a", "b"):
        write(tmp_path / name, "a.tar", members)
    assert "1 quarantined (1 split: got 'holdout'" in prepare(shards=str(tmp_path / "a"))
    assert prepare(shards=str(tmp_path / "b"), unknown_columns="ignore").startswith("2 clips in 1 shards, 2 without")
    assert [row["split"] for row in read_index(Place.of(tmp_path / "b")).to_pylist()] == ["train", "test"]
