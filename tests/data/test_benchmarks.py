"""The official files read with their documented counts, and each of their traps."""

import csv
import json
from pathlib import Path

import pytest

from mama_ray.config import load_config
from mama_ray.data.benchmarks.__main__ import READERS, main
from mama_ray.data.benchmarks.activitynet import read_activitynet
from mama_ray.data.benchmarks.didemo import read_didemo
from mama_ray.data.benchmarks.msrvtt import read_msrvtt
from mama_ray.data.benchmarks.msvd import read_msvd
from mama_ray.data.benchmarks.rows import hold_out, make_row, trimmed, with_found_files
from mama_ray.errors import UserError
from mama_ray.evaluation.coverage import Coverage, has_official_videos
from mama_ray.evaluation.protocol import BenchmarkConfig
from mama_ray.orchestration.prepare.rows import checked_clips

ANNOTATIONS = Path(__file__).resolve().parents[2] / "../shared/data/annotations"


def official(name: str) -> Path:
    if not (ANNOTATIONS / name).exists():
        pytest.skip(f"official annotation file {name} is not beside this checkout")
    return ANNOTATIONS / name


def num_captions(rows) -> int:
    return sum(len(row["captions"]) for row in rows)


def test_msrvtt_1ka_has_1000_pairs_and_995_sentences():
    rows = read_msrvtt(official("msrvtt/MSRVTT_JSFUSION_test.csv"))
    assert (len(rows), num_captions(rows)) == (1000, 1000)
    assert len({row["captions"][0] for row in rows}) == 995
    assert len({row["video_id"] for row in rows}) == 1000


@pytest.mark.parametrize(("split", "videos", "sentences"), [("val", 1065, 4180), ("test", 1004, 4021)])
def test_didemo_joins_by_stem_without_losing_a_sentence(split, videos, sentences):
    rows = read_didemo(official(f"didemo/{split}_data.json"), split=split)
    assert (len(rows), num_captions(rows)) == (videos, sentences)


def test_activitynet_val_1_has_4917_paragraphs_of_documented_length():
    rows = read_activitynet(official("activitynet_captions/val_1.json"))
    words = [len(" ".join(text.strip() for text in row["captions"]).split()) for row in rows]
    assert len(rows) == 4917
    assert num_captions(rows) / len(rows) == pytest.approx(3.56, abs=0.005)
    assert (sum(count > 50 for count in words) / len(rows), max(words)) == (pytest.approx(0.34, abs=0.005), 332)


@pytest.mark.parametrize(
    ("split", "videos", "captions"), [("train", 1200, 48774), ("val", 100, 4290), ("test", 670, 27763)]
)
def test_msvd_has_the_documented_counts(split, videos, captions):
    rows = read_msvd(official(f"msvd/{split}_list.txt"), official("msvd/captions_msvd.json"), split)
    assert (len(rows), num_captions(rows)) == (videos, captions)
    assert {row["split"] for row in rows} == {split}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("msrvtt_1ka", ["msrvtt/MSRVTT_JSFUSION_test.csv"]),
        ("didemo", ["didemo/test_data.json"]),
        ("activitynet", ["activitynet_captions/val_1.json"]),
        ("msvd", ["msvd/test_list.txt", "msvd/captions_msvd.json"]),
    ],
)
def test_the_official_files_are_the_whole_benchmark_once_prepared(name, files, tmp_path):
    annotations, captions = [*map(official, files), None][:2]
    benchmark = load_config(BenchmarkConfig, Path(__file__).resolve().parents[2] / f"configs/benchmark/{name}.yaml")
    rows = READERS[name](annotations, captions, "test")
    clips = list(checked_clips(enumerate(rows, 1), default_split=None, scratch=str(tmp_path)))
    coverage = Coverage(len(clips), sum(len(clip.captions) for clip in clips))
    assert coverage.deviation(benchmark) == ""
    assert has_official_videos([clip.video_id for clip in clips], benchmark) is True
    assert has_official_videos([clip.video_id for clip in clips[1:]] + ["another"], benchmark) is False


def test_a_didemo_video_under_two_extensions_is_one_row(tmp_path):
    names = ["a@N00_1.mov", "b.mp4", "a@N00_1.mp4", "c."]
    path = tmp_path / "test_data.json"
    path.write_text(json.dumps([{"video": name, "description": f"text {k}"} for k, name in enumerate(names)]))
    rows = read_didemo(path)
    assert [(row["video_id"], row["captions"]) for row in rows] == [
        ("a@N00_1", ["text 0", "text 2"]),
        ("b", ["text 1"]),
        ("c", ["text 3"]),
    ]


def test_files_on_disk_decide_the_extension(tmp_path):
    (tmp_path / "a.mkv").touch()
    (tmp_path / "b.txt").touch()
    rows = [make_row(f"{name}.mp4", name, ["x"], "test") for name in "ab"]
    assert [row["video"] for row in with_found_files(rows, tmp_path)] == ["a.mkv", "b.mp4"]


def test_clips_in_folders_are_found_as_what_they_are(tmp_path):
    """A trimmed clip is not its whole recording, and EK-100's videos lie in their person's folder."""
    for name in ("A-R1-Soup.mp4", "A-R1-Soup/A-R1-Soup-1-2.avi", "P01/P01_11.mp4", "P02/videos/P02_01.MP4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = [("A-R1-Soup/A-R1-Soup-1-2.mp4", "A-R1-Soup"), ("P01/P01_11.MP4", "P01_11"), ("P02/P02_01.MP4", "P02_01")]
    rows = [make_row(video, video_id, [], "test") for video, video_id in [*names, ("P03/P03_01.MP4", "P03_01")]]
    found = [row["video"] for row in with_found_files(rows, tmp_path)]
    assert found == ["A-R1-Soup/A-R1-Soup-1-2.avi", "P01/P01_11.mp4", "P02/videos/P02_01.MP4", "P03/P03_01.MP4"]
    with pytest.raises(
        UserError, match="none of the videos is there: got 4 videos in .*, wanted files such as P03/P03"
    ):
        with_found_files(rows[3:], tmp_path)


@pytest.mark.parametrize("trim_s", [0.0, -1.0, float("nan"), float("inf")])
def test_no_seconds_at_all_are_refused(trim_s):
    with pytest.raises(UserError, match="seconds to keep of every video"):
        trimmed([make_row("a.mp4", "a", [], "test")], trim_s)


def test_clips_with_times_of_their_own_are_not_trimmed():
    row = make_row("a.mp4", "a", [], "test")
    assert trimmed([row], 5.0) == [row | {"start_s": 0.0, "end_s": 5.0}]
    with pytest.raises(UserError, match="these clips cannot be trimmed: got 1 clips .*, a_1"):
        trimmed([row, row | {"clip_id": "a_1", "start_s": 1.0, "end_s": 2.0}], 5.0)


def test_a_command_that_would_do_harm_is_refused(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("A-R1-Soup-1-2 1 1 1\nA-R1-Soup-3-4 1 1 1\n")
    with pytest.raises(UserError, match="--output is the official file itself"):
        main("egtea", path, tmp_path / "x" / ".." / "list.txt")
    with pytest.raises(UserError, match="only clips of train are held out as val: got --num-val 1 with --split test"):
        main("egtea", path, tmp_path / "out.jsonl", num_val=1)
    with pytest.raises(UserError, match="seconds to keep"):
        main("egtea", path, tmp_path / "out.jsonl", trim_s=0.0)
    assert path.read_text().startswith("A-R1")


@pytest.mark.parametrize("name", ["didemo", "activitynet", "ek100", "charades_ego", "egomcq"])
def test_captions_beside_annotations_that_have_their_own_are_refused(tmp_path, name):
    with pytest.raises(UserError, match=f"--captions has no meaning for a benchmark of one file: got {name}"):
        main(name, tmp_path / "test.json", tmp_path / "out.jsonl", captions=tmp_path / "captions.json")


def test_captions_beside_json_lines_of_msrvtt_are_refused(tmp_path):
    with pytest.raises(UserError, match="--captions has no meaning for JSON lines"):
        read_msrvtt(tmp_path / "test.jsonl", tmp_path / "MSRVTT_data.json")


def test_val_2_of_activitynet_is_refused(tmp_path):
    with pytest.raises(UserError, match="val_1"):
        read_activitynet(tmp_path / "val_2.json")


def test_a_test_video_with_a_list_of_sentences_is_refused(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text('{"clip_id": "video1", "text": ["one", "two"]}\n')
    with pytest.raises(UserError, match="one sentence"):
        read_msrvtt(path)
    assert num_captions(read_msrvtt(path, split="train")) == 2


def test_msrvtt_train_takes_all_sentences_of_its_own_videos(tmp_path):
    ids, data = tmp_path / "train.9k.csv", tmp_path / "MSRVTT_data.json"
    ids.write_text("video_id\nvideo0\nvideo1\n")
    pairs = [("video1", "a"), ("video0", "b"), ("video1", "c"), ("video7", "d")]
    data.write_text(json.dumps({"sentences": [{"video_id": name, "caption": text} for name, text in pairs]}))
    rows = read_msrvtt(ids, data, split="train")
    assert [row["captions"] for row in rows] == [["b"], ["a", "c"]]
    with pytest.raises(UserError, match="sentence"):
        read_msrvtt(ids)


def test_hold_out_is_the_same_everywhere_and_only_moves_split():
    rows = [make_row(f"v{n}.mp4", f"v{n}", ["x"], "train") for n in range(50)]
    held, again = hold_out(rows, 7), hold_out(rows[::-1], 7)
    val = {row["video_id"] for row in held if row["split"] == "val"}
    assert len(val) == 7
    assert val == {row["video_id"] for row in again if row["split"] == "val"}


def test_the_command_writes_one_json_object_a_row(tmp_path):
    source, output = tmp_path / "test.csv", tmp_path / "annotations.jsonl"
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([["key", "vid_key", "video_id", "sentence"], ["ret0", "msr1", "video1", "a man, é"]])
    main("msrvtt_1ka", source, output, trim_s=30)
    assert [json.loads(line) for line in output.read_text().splitlines()] == [
        {
            "video": "video1.mp4",
            "video_id": "video1",
            "captions": ["a man, é"],
            "split": "test",
            "start_s": 0.0,
            "end_s": 30,
        }
    ]


@pytest.mark.parametrize(
    ("benchmark", "name", "content"),
    [
        ("msrvtt_1ka", "a.csv", b"\xff\xfe no text"),
        ("msrvtt_1ka", "a.csv", b"x,y\n1,2\n"),
        ("msrvtt_1ka", "a.csv", b""),
        ("msrvtt_1ka", "a.jsonl", b'{"video": 1}\n'),
        ("didemo", "a.json", b"no JSON"),
        ("didemo", "a.json", b'{"a": 1}'),
        ("activitynet", "a.json", b'{"a": 1}'),
        ("activitynet", "a.json", b"[1]"),
    ],
)
def test_a_file_of_another_kind_is_one_line(tmp_path, benchmark, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{benchmark}|a.csv"):
        main(benchmark, tmp_path / name, tmp_path / "out.jsonl")
    with pytest.raises(UserError, match="no such file: got .*absent"):
        main(benchmark, tmp_path / "absent", tmp_path / "out.jsonl")
    with pytest.raises(UserError, match="no such folder of videos"):
        main(benchmark, tmp_path / name, tmp_path / "out.jsonl", videos=tmp_path / "absent")
    assert not (tmp_path / "out.jsonl").exists()
