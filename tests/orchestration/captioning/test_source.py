"""The source of a plan: what it yields of shards, and how clips of several sizes travel through Ray Data."""

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from ray.data._internal.delegating_block_builder import DelegatingBlockBuilder
from ray.data.block import BlockAccessor

from mama_ray.captioning.pictures.settings import FRAMES, GRID, VIDEO
from mama_ray.captioning.pictures.show import show_clip
from mama_ray.data.clip import Clip
from mama_ray.data.index import index_row, read_index
from mama_ray.data.shard import write_shard
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.decode import _columns, _row, shown_of
from mama_ray.orchestration.captioning.source import MAX_READ_BYTES, ShardSource, ShowConfig, ShownClip
from mama_ray.storage.places import Place
from tests.data.video.video_factory import make_video
from tests.orchestration.prepare.spoiled_shards import CHANGED, GARBAGE, TRUNCATED, write_spoiled_shards

FACTS = {"duration_s": 1.0, "width": 48, "height": 48, "fps": 8.0, "codec": "h264"}
HOW = {
    GRID: ShowConfig(GRID, 192),
    FRAMES: ShowConfig(FRAMES, 32, num_frames=4),
    VIDEO: ShowConfig(VIDEO, 48, num_frames=6),
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_spoiled_shards(tmp_path_factory.mktemp("spoiled") / "shards")


@pytest.mark.parametrize("kind", [GRID, FRAMES, VIDEO])
def test_every_clip_is_shown_in_order_and_a_bad_one_is_a_reason(shards, kind):
    records = read_index(Place.of(shards)).to_pylist()
    rows = [TRUNCATED - 1, TRUNCATED, GARBAGE, GARBAGE + 1, CHANGED]
    found = list(ShardSource(str(shards), 2).show([records[row] for row in rows], HOW[kind]))
    assert [isinstance(one, ShownClip) for one in found] == [True, False, False, True, False]
    assert all(one and "\n" not in one for one in found if isinstance(one, str))
    assert "sha256" in found[-1] or "hash" in found[-1] or "other" in found[-1]
    good = found[0]
    assert len(good.frame_indices) == HOW[kind].num_indices
    assert good.read_s > 0


def test_a_task_lets_go_of_a_video_that_it_has_shown(tmp_path):
    """Of four times as many clips it holds no more than the videos that it reads at a time, and one that is shown."""
    video = make_video(num_frames=8) + bytes(MAX_READ_BYTES // 2)
    clips = [Clip(f"clip-{number}", "v", 0.0, 1.0, (), None, "train") for number in range(4)]
    places = write_shard(tmp_path / "clips.tar", [(clip, video, "mp4") for clip in clips])
    records = [index_row(clip, place, "clips.tar", FACTS) for clip, place in zip(clips, places, strict=True)]
    tracemalloc.start()
    shown = [isinstance(one, ShownClip) for one in ShardSource(str(tmp_path), 1).show(records, HOW[GRID])]
    (_, most), _ = tracemalloc.get_traced_memory(), tracemalloc.stop()
    assert shown == [True] * 4
    assert most < 2.5 * len(video)


def test_a_storage_that_fails_says_nothing_about_a_clip(shards, tmp_path):
    records = read_index(Place.of(shards)).to_pylist()[:2]
    with pytest.raises(UserError, match=r"clips-000000\.tar"):
        list(ShardSource(str(tmp_path), 2).show(records, HOW[GRID]))


def test_videos_of_several_shapes_and_an_error_travel_as_they_are():
    sizes = [(64, 48), (48, 64), (96, 32)]
    shown = [show_clip(make_video(num_frames=8, width=w, height=h), HOW[VIDEO]) for w, h in sizes]
    batch = _columns([_row(HOW[VIDEO], one) for one in (shown[0], "no video", *shown[1:])])
    block = BlockAccessor.batch_to_block(batch)
    assert isinstance(block, pa.Table)
    back = BlockAccessor.for_block(block).to_numpy(["shown", "times_s", "shown_sha256", "frame_indices", "error"])
    for position, one in zip((0, 2, 3), shown, strict=True):
        ours = shown_of(VIDEO, back, position)
        assert ours.is_intact() and ours.content.dtype == np.uint8
        np.testing.assert_array_equal(ours.content, one.content)
        assert ours.times_s == tuple(one.times_s.tolist())
        assert back["frame_indices"][position].tolist() == one.frame_indices.tolist()
    assert back["error"].tolist() == ["", "no video", "", ""]
    assert not shown_of(VIDEO, back, 1).is_intact()
    assert shown_of(GRID, back | {"shown": [shown[0].content[0]]}, 0).times_s is None


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_blocks_of_one_size_and_of_several_become_one_batch(order):
    """Ray Data cuts a batch of large videos into blocks and joins them again for the actor."""
    shown = [show_clip(make_video(num_frames=8, width=w, height=h), HOW[VIDEO]) for w, h in ((64, 48), (48, 64))]
    rows = [_row(HOW[VIDEO], one) for one in (*shown, "no video")]
    batches = [[rows[0], rows[0]], [rows[1], rows[2], rows[0]], [rows[1]]]
    builder = DelegatingBlockBuilder()
    for number in order:
        builder.add_block(BlockAccessor.batch_to_block(_columns(batches[number])))
    back = BlockAccessor.for_block(builder.build()).to_numpy(["shown", "times_s", "shown_sha256"])
    wanted = [row for number in order for row in batches[number]]
    assert len(back["shown"]) == len(wanted) == 6
    for position, row in enumerate(wanted):
        ours = shown_of(VIDEO, back, position)
        assert ours.content.shape == row["shown"].shape
        assert ours.is_intact() == bool(row["shown_sha256"])
