"""From parts to the table: every clip once and as the index has it, or no table; counts that stay small."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from mama_ray.captioning.engines.captioner import Captioner
from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.pictures.settings import GRID
from mama_ray.captioning.postprocess import PostprocessConfig, postprocess
from mama_ray.captioning.quality import QualityConfig, caption_key
from mama_ray.captioning.table import CAPTION_SCHEMA, file_name
from mama_ray.data import unique_ids
from mama_ray.orchestration.captioning import copies
from mama_ray.orchestration.captioning.copies import shared_captions
from mama_ray.orchestration.captioning.finish import (
    Gate,
    TableSummary,
    draw_rows,
    num_files,
    write_files,
)
from mama_ray.orchestration.captioning.parts import (
    CLIPS_PER_FILE,
    PART_SCHEMA,
    list_parts,
    part_names,
    part_place,
    write_parts,
)
from mama_ray.orchestration.captioning.plan import CaptionPlan
from mama_ray.orchestration.captioning.source import ShardSource, ShowConfig
from mama_ray.storage.places import Place
from tests.orchestration.captioning.caption_tables import parts_of_version_1

CONSTANTS = {
    "source": "generated", "model": "m", "weights_sha256": "w", "prompt": "p", "temperature": 0.5, "top_p": 1.0,
    "max_tokens": 9,
}  # fmt: skip
QUALITY = QualityConfig(max_copies=2)


def plan_of(folder: Path, num_clips: int, num_captions: int = 1) -> CaptionPlan:
    """Return a plan for so many clips; nothing is decoded here, so there are no shards."""
    index = pa.table(
        {"clip_id": [f"clip-{row}" for row in range(num_clips)], "sha256": [f"sha-{row}" for row in range(num_clips)]}
    )
    sampling = SamplingConfig(num_captions=num_captions, temperature=0.5)
    captioner = Captioner("LlavaForConditionalGeneration", 64, "p", 80, None, "w", "vllm")
    return CaptionPlan(
        ray.put(index), num_clips, "ids", ShardSource("nowhere", 1), str(folder), None, captioner,
        ShowConfig(GRID, 64), sampling, EngineConfig(),
    )  # fmt: skip


def commit(folder: Path, rows, num_captions: int = 1, **changes) -> None:
    """Commit rows as an actor would; `changes` are of all of them, {row} and {sample} stand for the numbers."""
    made = []
    for row in rows:
        for sample in range(num_captions):
            known = {
                "row": row, "clip_id": f"clip-{row}", "video_sha256": f"sha-{row}", "sample": sample,
                "frame_indices": [0, 1], "num_filled": 0, "shown_sha256": "g", "seed": 7 + sample, "num_tokens": 5,
                "text": "a dog {row} runs {sample} times", "finish_reason": "stop", "mean_logprob": -1.0, "error": None,
            }  # fmt: skip
            known |= changes
            made.append({k: v.format(row=row, sample=sample) if isinstance(v, str) else v for k, v in known.items()})
    write_parts(Place.of(folder), pa.Table.from_pylist(made, schema=PART_SCHEMA))


def finish(plan: CaptionPlan) -> tuple[TableSummary, list[str]]:
    """Write all files as the job does; return the summary of all and the names of damaged parts."""
    gate = Gate(PostprocessConfig(), QUALITY, shared_captions(plan, PostprocessConfig(), QUALITY.max_copies))
    summary, damaged = write_files(plan, gate, CONSTANTS)
    return ray.get(summary), damaged


def table_of(folder: Path) -> list[dict]:
    paths = sorted(folder.glob("captions-*.parquet"))
    tables = [pq.read_table(path) for path in paths]
    assert [path.name for path in paths] == [file_name(number) for number in range(len(paths))]
    assert all(table.schema.equals(CAPTION_SCHEMA) for table in tables)
    return [row for table in tables for row in table.to_pylist()]


@pytest.mark.ray
def test_parts_in_any_order_become_files_in_the_indexs_order(ray_cluster, tmp_path):
    num_clips = CLIPS_PER_FILE + 40
    rows = list(range(num_clips))
    commit(tmp_path, rows[3::2], num_captions=2)
    commit(tmp_path, [0, *rows[2::2]], num_captions=2)
    commit(tmp_path, [1], num_captions=2)
    summary, damaged = finish(plan_of(tmp_path, num_clips, num_captions=2))
    found = table_of(tmp_path)
    assert [(row["clip_id"], row["sample"]) for row in found] == [(f"clip-{n}", k) for n in rows for k in range(2)]
    assert {row["caption"] for row in found} == {f"a dog {n} runs {k} times" for n in rows for k in range(2)}
    assert all(row | CONSTANTS == row for row in found)
    assert (damaged, summary.num_rows, summary.num_tokens) == ([], 2 * num_clips, 10 * num_clips)
    assert pq.read_metadata(tmp_path / file_name(0)).num_rows == 2 * CLIPS_PER_FILE


@pytest.mark.ray
def test_a_damaged_part_is_reported_removed_and_its_clips_can_be_written_again(ray_cluster, tmp_path):
    plan = plan_of(tmp_path, 100)
    commit(tmp_path, range(100))
    names = list_parts(Place.of(tmp_path))
    for name in names[1:3]:
        path = Path(part_place(Place.of(tmp_path), name).path)
        path.write_bytes(path.read_bytes()[:-20])
    assert finish(plan)[1] == names[1:3]
    assert not list(tmp_path.glob("captions-*"))
    assert list_parts(Place.of(tmp_path)) == [names[0], names[3]]
    commit(tmp_path, range(32, 96))
    assert finish(plan)[1] == []
    assert [row["clip_id"] for row in table_of(tmp_path)] == [f"clip-{row}" for row in range(100)]


@pytest.mark.ray
def test_clips_that_a_zombie_wrote_as_well_are_kept_once_with_one_writers_words(ray_cluster, tmp_path):
    commit(tmp_path, range(32), num_captions=2)
    commit(tmp_path, range(20, 40), num_captions=2, text="the zombies words {row} {sample}")
    commit(tmp_path, range(4), num_captions=2, text="more of them {row} {sample}")
    finish(plan_of(tmp_path, 40, num_captions=2))
    found = table_of(tmp_path)
    assert [(row["clip_id"], row["sample"]) for row in found] == [(f"clip-{n}", k) for n in range(40) for k in range(2)]
    writers = [{row["caption"].split()[0] for row in found[start : start + 2]} for start in range(0, 80, 2)]
    assert all(len(words) == 1 for words in writers), "a clip's captions are of two writers"


@pytest.mark.ray
def test_parts_of_version_1_and_of_today_become_one_table(ray_cluster, tmp_path):
    for rows in (range(32), range(32, 48)):
        (name,) = part_names(rows)
        path = Path(part_place(Place.of(tmp_path), name).path)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(parts_of_version_1(list(rows)), path, compression="zstd")
    commit(tmp_path, range(40, 70))  # some by both
    summary, damaged = finish(plan_of(tmp_path, 70))
    found = table_of(tmp_path)
    assert (summary.num_rows, damaged) == (70, [])
    assert [row["clip_id"] for row in found] == [f"clip-{row}" for row in range(70)]
    assert [row["shown_sha256"] for row in found] == [f"grid-{row}" for row in range(48)] + ["g"] * 22
    assert [row["caption"].startswith("an old dog") for row in found] == [True] * 48 + [False] * 22


WRONG = {
    "a clip is another one": lambda folder: replace(folder, 5, clip_id="clip-6"),
    "a video is another one": lambda folder: replace(folder, 5, video_sha256="sha-6"),
    "a sample is missing": lambda folder: replace(folder, 5, num_captions=1),
    "a sample comes twice": lambda folder: replace(folder, 5, sample=0),
}


def remove(folder: Path, row: int) -> None:
    shutil.rmtree(folder / ".captioning")
    commit(folder, [other for other in range(10) if other != row], num_captions=2)


def replace(folder: Path, row: int, num_captions: int = 2, **changes) -> None:
    remove(folder, row)
    commit(folder, [row], num_captions=num_captions, **changes)


@pytest.mark.ray
@pytest.mark.parametrize("what", WRONG)
def test_no_file_is_written_of_clips_that_are_not_those_of_the_index(ray_cluster, tmp_path, what):
    commit(tmp_path, range(10), num_captions=2)
    WRONG[what](tmp_path)
    with pytest.raises(RuntimeError, match="file 0 of the table: .*samples?"):
        finish(plan_of(tmp_path, 10, num_captions=2))
    assert not list(tmp_path.glob("captions-*"))


@pytest.mark.ray
def test_a_caption_that_clips_of_several_files_share_is_flagged_in_all_of_them(ray_cluster, tmp_path):
    num_clips = CLIPS_PER_FILE + 8
    commit(tmp_path, range(num_clips))
    for row, words in {
        9: "A cat sleeps here.",
        2000: "the cat sleeps here",
        CLIPS_PER_FILE + 1: "cat sleeps here",
    }.items():
        rewrite(tmp_path, row, words)
    for row in (11, CLIPS_PER_FILE + 2):
        rewrite(tmp_path, row, "two of these are allowed")
    summary, _ = finish(plan_of(tmp_path, num_clips))
    flagged = [row["clip_id"] for row in table_of(tmp_path) if "duplicate" in row["flags"]]
    assert flagged == ["clip-9", "clip-2000", f"clip-{CLIPS_PER_FILE + 1}"]
    assert (summary.flags, summary.outcomes) == ({"duplicate": 3}, {"good": num_clips - 3, "flagged": 3})


@pytest.mark.ray
def test_copies_are_clips_and_not_their_captions(ray_cluster, tmp_path):
    commit(tmp_path, [0, 3], num_captions=3)
    commit(tmp_path, [1, 2], num_captions=3, text="a cat sleeps here")
    commit(tmp_path, [4, 5, 6], num_captions=3, text="two men cook {sample} eggs")
    summary, _ = finish(plan_of(tmp_path, 7, num_captions=3))
    flagged = [row["clip_id"] for row in table_of(tmp_path) if "duplicate" in row["flags"]]
    assert flagged == [f"clip-{row}" for row in (4, 5, 6) for _ in range(3)]
    assert summary.flags == {"duplicate": 9}


def rewrite(folder: Path, row: int, words: str) -> None:
    """Give one committed clip other words."""
    (name,) = part_names([row])
    chunk = name[:8]
    (path,) = (folder / ".captioning/parts").rglob(f"{chunk}-*")
    rows = pq.read_table(path).to_pylist()
    changed = [{**own, "text": words} if own["row"] == row else own for own in rows]
    pq.write_table(pa.Table.from_pylist(changed, schema=PART_SCHEMA), path)


@pytest.mark.ray
def test_errors_are_rows_without_a_caption_and_every_outcome_is_counted(ray_cluster, tmp_path):
    nothing = {"text": None, "seed": None, "num_tokens": None, "finish_reason": None, "mean_logprob": None}
    commit(tmp_path, range(4), num_captions=2)
    commit(tmp_path, [4, 5], num_captions=2, **nothing, error="cannot be decoded", frame_indices=None)
    commit(tmp_path, [6], num_captions=2, text="  \n ")
    commit(tmp_path, [7], num_captions=2, finish_reason="length")
    summary, _ = finish(plan_of(tmp_path, 8, num_captions=2))
    found = table_of(tmp_path)
    assert [row["caption"] for row in found[8:12]] == [None] * 4
    assert {row["error"] for row in found[8:12]} == {"cannot be decoded"}
    assert [row["flags"] for row in found[8:]] == [[]] * 4 + [["empty"]] * 2 + [["cut_off"]] * 2
    assert summary.outcomes == {"good": 8, "error": 4, "flagged": 4}
    assert (summary.errors, summary.flags) == ({"cannot be decoded": 4}, {"empty": 2, "cut_off": 2})
    assert summary.lengths == {6: 10, 0: 2}
    assert summary.samples["error"] == [4, 5] and summary.samples["cut_off"] == [7]


@pytest.mark.parametrize(("num_clips", "count"), [(1, 1), (CLIPS_PER_FILE, 1), (CLIPS_PER_FILE + 1, 2)])
def test_files_hold_so_many_clips(num_clips, count):
    assert num_files(num_clips) == count


def test_summaries_add_up():
    one = TableSummary(2, Counter(good=2), words=Counter(dog=2), num_tokens=7, samples={"good": [0, 1]})
    two = TableSummary(3, Counter(good=1, error=2), errors=Counter(bad=2), num_tokens=1, samples={"error": [5]})
    one.merge(two)
    assert (one.num_rows, one.num_tokens, one.outcomes) == (5, 8, {"good": 3, "error": 2})
    assert one.samples == {"good": [0, 1], "error": [5]}
    assert not one.forgot_words


def test_the_clips_to_show_are_a_random_draw_and_the_same_however_the_table_is_cut():
    rows = list(range(5000))
    drawn = draw_rows(rows)
    assert len(drawn) == 8 and drawn == sorted(drawn)
    parts = [row for start in range(0, 5000, 700) for row in draw_rows(rows[start : start + 700])]
    assert draw_rows(parts) == drawn == draw_rows(rows[::-1])
    # As likely from the end as from the beginning: the means of draws of 100 tables lie about the middle.
    means = [np.mean(draw_rows(list(range(first, first + 1000)))) - first for first in range(0, 100_000, 1000)]
    assert abs(np.mean(means) - 500) < 40  # three standard errors are 30


def test_a_summary_stays_small_and_keeps_what_is_common():
    whole = TableSummary()
    for part in range(60):
        words = [f"word-{part}-{number}" for number in range(10_000)]
        captions = [f"caption {part} {number}" for number in range(1_000)]
        counts = {"captions": Counter(captions), "openings": Counter(captions), "words": Counter(words)}
        reasons = Counter(f"reason {part} {number}" for number in range(50))
        rows = {"good": list(range(part * 8, part * 8 + 8))}
        summary = TableSummary(1_000, errors=reasons, lengths=Counter({part % 61: 1}), samples=rows, **counts)
        summary.captions["the usual caption"] = summary.words["dog"] = summary.errors["the usual reason"] = 100
        whole.merge(summary)
    assert whole.forgot_words
    assert len(whole.words) <= 200_000
    assert max(len(whole.captions), len(whole.openings)) <= 2_000
    assert len(whole.errors) <= 200
    assert whole.num_rows == 60_000
    assert whole.samples["good"] == draw_rows(list(range(480))), "another draw than that of the whole"
    assert whole.captions["the usual caption"] == whole.words["dog"] == whole.errors["the usual reason"] == 6_000


@pytest.mark.ray
def test_copies_are_found_in_memory_and_in_several_ranges_of_hashes(ray_cluster, tmp_path, monkeypatch):
    num_clips = 100
    for row in range(num_clips):
        commit(tmp_path, [row], text=f"a man does the thing {row % 40}")
    plan = plan_of(tmp_path, num_clips)
    whole = ray.get(shared_captions(plan, PostprocessConfig(), 2))
    monkeypatch.setattr(unique_ids, "_HELD", 15)  # so that the hashes go through files
    assert copies._count_keys._function(plan.output, range(1), 2).tolist() == whole.tolist() == sorted(whole.tolist())
    texts = [postprocess(f"a man does the thing {number}", PostprocessConfig()) for number in range(20)]
    wanted = {unique_ids.hash_of_id(caption_key(text)) for text in texts}
    assert set(whole.tolist()) == wanted
