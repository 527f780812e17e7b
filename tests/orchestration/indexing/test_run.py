"""jobs/index.py on a local Ray: the table, what a second start does, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from mama_ray.data.clip import Clip
from mama_ray.data.index import read_index
from mama_ray.errors import UserError
from mama_ray.orchestration.indexing.job import IndexJob
from mama_ray.orchestration.indexing.run import make_index
from mama_ray.search.embedding_parts import SUMMARY_NAME
from mama_ray.search.embedding_table import EmbeddingTable
from mama_ray.search.index import ExactIndex, Query
from mama_ray.search.towers import Towers
from mama_ray.storage.places import Place
from tests.encoder.tiny_encoder import model_folder, write_model  # noqa: F401 - a fixture
from tests.orchestration.captioning.caption_tables import captions_of, write_table
from tests.orchestration.indexing.index_runs import clip_of, parts_of, rows_of, write_shards
from tests.search.made_table import as_of_version_1

pytestmark = pytest.mark.ray

Sample = tuple[Clip, bytes, str]


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [clip_of(number, is_broken=number == 5) for number in range(12)]


@pytest.fixture
def shards(tmp_path, samples) -> Path:
    return write_shards(tmp_path / "shards", [samples[:7], samples[7:10]])


@pytest.fixture(scope="module")
def indexed(ray_cluster, samples, model_folder, tmp_path_factory) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("indexed")
    write_shards(folder / "shards", [samples[:7], samples[7:10]])
    line = make_index(job_of(folder / "shards", model_folder, folder / "index"))
    assert line.startswith("indexed 10 clips (9 captions, 1 errors)") and line.endswith(str(folder / "index"))
    return folder


def job_of(shards: Path, model: Path, output: Path, **changes) -> IndexJob:
    return IndexJob(shards=str(shards), model=str(model), output=str(output), part_clips=4, batch_size=3, **changes)


def test_every_clip_and_caption_has_the_feature_of_the_towers(indexed, samples, model_folder):  # noqa: F811
    table = EmbeddingTable.open(str(indexed / "index"))
    towers = Towers.load(str(model_folder), batch_size=3, num_processes=1)
    table.require_model(towers.model_hash)
    assert table.clip_ids.to_pylist() == [clip.clip_id for clip, *_ in samples[:10]]
    assert list(np.flatnonzero(~table.has_video)) == [5]
    for row, (clip, video, _) in enumerate(samples[:10]):
        if row != 5:
            np.testing.assert_allclose(table.video[row], towers.embed_video(video), atol=1e-3)
        own = table.caption_rows(row)
        assert len(own) == len(clip.captions)
        if len(own):
            expected = towers.embed_texts([caption.text for caption in clip.captions])
            np.testing.assert_allclose(table.captions[own.start : own.stop], expected, atol=1e-3)


def test_a_clip_as_example_finds_itself_first(indexed, samples, model_folder):  # noqa: F811
    index = ExactIndex(EmbeddingTable.open(str(indexed / "index")))
    example = Towers.load(str(model_folder), num_processes=1).embed_video(samples[3][1])
    (first, second) = index.search(Query(plus=[example], limit=2))
    assert first.clip_id == "clip-003"
    assert first.similarity > 0.999 and first.similarity > second.similarity


def test_a_second_start_does_nothing(indexed, model_folder):  # noqa: F811
    before = parts_of(indexed / "index")
    assert make_index(job_of(indexed / "shards", model_folder, indexed / "index")).startswith("done already, 10 clips")
    assert parts_of(indexed / "index") == before


def test_a_table_of_version_1_is_done_and_a_damaged_summary_is_written_again(indexed, model_folder, tmp_path):  # noqa: F811
    output = Path(shutil.copytree(indexed / "index", tmp_path / "index"))
    job, wanted, before = (
        job_of(indexed / "shards", model_folder, output),
        (output / SUMMARY_NAME).read_text(),
        parts_of(output),
    )
    as_of_version_1(output, num_errors=1)
    assert make_index(job).startswith("done already, 10 clips (9 captions, 1 errors)")
    (output / "embeddings.json").write_text("{")
    assert make_index(job).startswith("indexed 10 clips")
    assert ((output / SUMMARY_NAME).read_text(), parts_of(output)) == (wanted, before)


def test_new_shards_are_added_and_nothing_else_is_touched(indexed, samples, model_folder, tmp_path):  # noqa: F811
    output = Path(shutil.copytree(indexed / "index", tmp_path / "index"))
    before = parts_of(output)
    shards = write_shards(tmp_path / "shards", [samples[:7], samples[7:10], samples[10:]])
    assert make_index(job_of(shards, model_folder, output)).startswith("indexed 12 clips")
    after = parts_of(output)
    assert after.items() > before.items() and set(after) - set(before) == {"clips-000002-0000.parquet"}
    assert len(EmbeddingTable.open(str(output))) == 12


def test_captions_of_a_table_are_added_without_decoding_a_clip(indexed, samples, model_folder, tmp_path):  # noqa: F811
    output = Path(shutil.copytree(indexed / "index", tmp_path / "index"))
    shards = write_shards(tmp_path / "shards", [samples[:7], samples[7:10]])
    before = EmbeddingTable.open(str(output))
    write_table(tmp_path / "captions", captions_of(str(shards), "train")[:6])
    spoil_the_videos(shards)
    line = make_index(job_of(shards, model_folder, output, captions=[str(tmp_path / "captions")]))
    assert line.startswith("indexed 10 clips (15 captions, 1 errors)")
    table = EmbeddingTable.open(str(output))
    np.testing.assert_array_equal(table.video, before.video)
    sources = [table.caption_sources[place].as_py() for place in table.caption_rows(2)]
    assert sources == ["human", "human", "generated"]


def spoil_the_videos(shards: Path) -> None:
    """Change the bytes of all videos, whose places and sizes stay: whoever reads one finds it damaged."""
    index = read_index(Place.of(shards))
    for row in index.select(["shard", "offset", "num_bytes"]).to_pylist():
        with (shards / row["shard"]).open("r+b") as stream:
            stream.seek(row["offset"])
            stream.write(bytes(row["num_bytes"]))


def test_another_model_is_refused(indexed, tmp_path):
    other = write_model(tmp_path / "other", seed=1)
    before = parts_of(indexed / "index")
    with pytest.raises(UserError, match=r"index of another model.*another --output"):
        make_index(job_of(indexed / "shards", other, indexed / "index"))
    assert parts_of(indexed / "index") == before


@pytest.mark.parametrize("change", ["another clip", "a shard less"])
def test_shards_that_changed_are_refused(indexed, samples, model_folder, tmp_path, change):  # noqa: F811
    output = Path(shutil.copytree(indexed / "index", tmp_path / "index"))
    changed = [samples[:7], samples[8:11]] if change == "another clip" else [samples[:7]]
    shards = write_shards(tmp_path / "shards", changed)
    told = [(output / name).read_bytes() for name in ("config.json", "config.yaml")]
    with pytest.raises(UserError, match=r"index of other clips.*another --output"):
        make_index(job_of(shards, model_folder, output))
    assert [(output / name).read_bytes() for name in ("config.json", "config.yaml")] == told


@pytest.mark.parametrize("name", ["config.yaml", "config.json"])
def test_the_settings_of_a_run_or_model_are_not_written_over(indexed, model_folder, tmp_path, name):  # noqa: F811
    (tmp_path / name).write_text('{"theirs": 1}')
    with pytest.raises(UserError, match=rf"files of others.*{name}.*another --output"):
        make_index(job_of(indexed / "shards", model_folder, tmp_path))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, '{"theirs": 1}')]


def test_damaged_and_lost_parts_alone_are_made_again(indexed, samples, model_folder, tmp_path):  # noqa: F811
    output = Path(shutil.copytree(indexed / "index", tmp_path / "index"))
    shards = write_shards(tmp_path / "shards", [samples[:7], samples[7:10]])
    whole, before = rows_of(output), parts_of(output)
    (output / "clips-000000-0000.parquet").unlink()
    (output / "clips-000000-0001.parquet").write_bytes(b"PAR1 and no more")
    make_index(job_of(shards, model_folder, output))
    assert rows_of(output) == whole
    kept = "clips-000001-0000.parquet"
    assert parts_of(output)[kept] == before[kept]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shards": "nowhere"}, "no index of clips"),
        ({"split": "val"}, r"no clips to index.*train \(10 clips\)"),
        ({"model": "no/such/model"}, "no such model"),
        ({"captions": ["nowhere"]}, "no finished caption table"),
    ],
)
def test_a_bad_start_ends_in_one_line(ray_cluster, shards, model_folder, tmp_path, change, told):  # noqa: F811
    job = job_of(shards, model_folder, tmp_path / "index").model_copy(update=change)
    with pytest.raises(UserError, match=told) as ending:
        make_index(job)
    assert "\n" not in str(ending.value)
