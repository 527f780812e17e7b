"""Rows that are laid when they are wanted are those of the table of all windows."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
import ray

from mama_ray.data.video.settings import DecodeConfig, SceneConfig
from mama_ray.data.video.windows import WindowPlanConfig
from mama_ray.orchestration.cluster import row_server
from mama_ray.orchestration.narration import window_rows
from mama_ray.orchestration.narration.planning import lay_windows, plan_narration
from mama_ray.orchestration.narration.videos import VideoFacts
from mama_ray.orchestration.narration.window_rows import WindowRows
from tests.data.video.video_factory import make_video

SCENES = ((0.0, 2.5), (2.5, None))
LENGTHS_S = (4.0, 0.0, 6.5, 3.0, 1.0, 9.0, 2.0)


def facts_of(number: int, duration_s: float) -> VideoFacts:
    known = {"uri": f"/v/{number}.mp4", "video_id": f"v{number}", "num_bytes": 9, "modified_ns": number}
    if not duration_s:
        return VideoFacts(**known, trouble="the file is empty")
    return VideoFacts(**known, sha256=f"{number:064}", duration_s=duration_s, scenes=SCENES if number % 2 else ())


FACTS = [facts_of(number, duration_s) for number, duration_s in enumerate(LENGTHS_S)]


@pytest.fixture
def both(tmp_path) -> tuple[pa.Table, WindowRows]:
    """The table and the rows; people told of all of the videos 3 and 6, and of a part of 0."""
    human = "video,start_s,end_s\nv3.mp4,0,9\nv0.mp4,1,2.5\nv6.mp4,0,2\n"
    (tmp_path / "human.csv").write_text(human)
    asked = FACTS, WindowPlanConfig(cover="uncovered"), str(tmp_path / "human.csv"), "clips"
    table, told = lay_windows(*asked)
    rows, told_again = lay_windows(*asked, max_held=len(table) - 1)
    assert isinstance(table, pa.Table) and isinstance(rows, WindowRows) and told == told_again
    assert [video.num_rows for video in told[2]] == [3, 1, 7, 0, 1, 10, 0]
    return table, rows


@pytest.mark.parametrize("most_kept", [1, 8, 1 << 19])
def test_rows_in_any_order_are_those_of_the_table(both, monkeypatch, most_kept):
    monkeypatch.setattr(window_rows, "_KEPT_ROWS", most_kept)
    table, rows = both[0], pickle.loads(pickle.dumps(both[1]))  # noqa: S301 - our own
    assert len(rows) == len(table)
    rng = np.random.default_rng(0)
    for count in (0, 1, 5, 40):
        positions = pa.array(rng.integers(len(table), size=count))
        assert rows.take(positions).equals(table.take(positions))
        columns = ["end_s", "clip_id"]
        assert rows.select(columns).take(positions).equals(table.select(columns).take(positions))
    for start, length in ((0, None), (2, 5), (len(table) - 2, 9), (len(table), 3)):
        assert rows.slice(start, length).equals(table.slice(start, length))
    with pytest.raises(IndexError):
        rows.take([len(table)])


def test_threads_that_ask_at_once_have_their_own_rows(both, monkeypatch):
    monkeypatch.setattr(window_rows, "_KEPT_ROWS", 4)
    table, rows = both
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda place: rows.take([place]), [*range(len(table))] * 8))
    assert pa.concat_tables(found).equals(pa.concat_tables([table] * 8))


@pytest.mark.ray
def test_the_windows_of_a_large_plan_are_served(ray_cluster, tmp_path, monkeypatch):
    for number in range(3):
        (tmp_path / f"{number}.mp4").write_bytes(make_video(num_frames=8 * (number + 1), fps=8))
    asked = [str(tmp_path)], WindowPlanConfig(), SceneConfig(), DecodeConfig()
    more = {"human": None, "human_times": "clips", "known": {}}
    table = ray.get(plan_narration(*asked, **more).table)
    monkeypatch.setattr(row_server, "MAX_HELD_ROWS", 2)
    served = ray.get(plan_narration(*asked, **more).table)
    assert isinstance(served, row_server.ServedRows) and len(served) == len(table) == 6
    assert served.slice(1, 4).equals(table.slice(1, 4))
    positions = pa.array([5, 0, 3])
    assert served.select(["clip_id"]).take(positions).equals(table.select(["clip_id"]).take(positions))
