"""The meta-set: drawn evenly over topics, taken out of train, disjoint from val and test. The captions of tables: of
train alone, counted, mixed as asked.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mama_ray.auditing.exclusions import Exclusion, caption_id, exclusions_to_csv
from mama_ray.captioning.quality import FLAGS
from mama_ray.data.assemble import ClipAssembler
from mama_ray.data.clip import Caption, Clip
from mama_ray.data.index import INDEX_SCHEMA, MEMORY_SCHEMA, index_row, write_index
from mama_ray.data.shard import write_shard
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.training.clip_choice import draw_meta_set
from mama_ray.orchestration.training.data import _load, load_run_data
from mama_ray.orchestration.training.inputs import look_at_inputs
from mama_ray.orchestration.training.job import ModelConfig, TrainJob
from mama_ray.orchestration.training.large_train import refuse_overlap
from mama_ray.orchestration.training.settings import DataConfig
from mama_ray.storage.places import Place
from tests.orchestration.captioning.caption_tables import captions_of, write_table
from tests.orchestration.runs.training_runs import write_shards


def table_of(ids: list[str], topics: list[str] | None = None, prefix: str = "") -> pa.Table:
    return pa.table(
        {
            "clip_id": ids,
            "video_id": [f"v{prefix}{name}" for name in ids],
            "sha256": [f"h{prefix}{name}" for name in ids],
            "topic": topics or ["t"] * len(ids),
        }
    )


def test_a_drawn_meta_set_is_balanced_over_topics_and_leaves_train():
    topics = ["common"] * 80 + ["rare"] * 15 + ["rarest"] * 5
    train = table_of([f"c{number}" for number in range(100)], topics)
    rest, meta = draw_meta_set(train, 24, seed=1)
    assert Counter(meta["topic"].to_pylist()) == {"common": 10, "rare": 9, "rarest": 5} or Counter(
        meta["topic"].to_pylist()
    ) == {"common": 9, "rare": 10, "rarest": 5}
    assert set(meta["clip_id"].to_pylist()).isdisjoint(rest["clip_id"].to_pylist())
    assert len(rest) + len(meta) == 100
    again = draw_meta_set(train, 24, seed=1)[1]
    assert again.equals(meta)
    assert not draw_meta_set(train, 24, seed=2)[1].equals(meta)


@pytest.mark.parametrize("learned", ["train", "meta"])
@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("column", ["clip_id", "video_id", "sha256"])
def test_train_and_meta_set_are_disjoint_from_val_and_test(learned, split, column):
    tables = {
        "train": table_of(["t1", "t2"], prefix="train"),
        "meta": table_of(["m1", "m2"]),
        "val": table_of(["x1"], prefix="val"),
        "test": table_of(["y1"], prefix="test"),
    }
    refuse_overlap(tables)
    stolen = tables[split].set_column(
        tables[split].schema.get_field_index(column), column, [[tables[learned][column][1].as_py()]]
    )
    with pytest.raises(UserError, match=f"{learned}.* overlaps {split} by {column}.*{learned[0]}2"):
        refuse_overlap(tables | {split: stolen})


def write_splits(directory: Path, video_ids: dict[str, str], captions=("what {} shows",)) -> str:
    """Write a corpus of one clip per split, cut out of the named video; returns its folder."""
    directory.mkdir(exist_ok=True)
    clips = [
        Clip(f"{split}0", video, 0.0, 1.0, tuple(Caption(text.format(split)) for text in captions), "t", split)
        for split, video in video_ids.items()
    ]
    samples = [(clip, f"bytes of {clip.clip_id}".encode(), "mp4") for clip in clips]
    facts = {"duration_s": 1.0, "width": 48, "height": 48, "fps": 8.0, "codec": "h264"}
    places = write_shard(directory / "clips-000000.tar", samples)
    rows = [index_row(clip, place, "clips-000000.tar", facts) for clip, place in zip(clips, places, strict=True)]
    sizes = {"clips-000000.tar": {"num_bytes": (directory / "clips-000000.tar").stat().st_size, "num_clips": len(rows)}}
    write_index(Place.of(directory), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)
    return str(directory)


def test_train_meta_and_val_are_the_splits_of_their_name_and_test_is_not_read(tmp_path):
    shards = write_splits(tmp_path, {split: f"video of {split}" for split in ("train", "meta", "val", "test")})
    load = _load._function  # what the remote task runs
    *tables, _, _, _ = load(shards, DataConfig(), 0, None)
    assert [table["clip_id"].to_pylist() for table in tables] == [["train0"], ["meta0"], ["val0"]]


@pytest.mark.parametrize("learned", ["train", "meta"])
@pytest.mark.parametrize("split", ["val", "test"])
def test_loading_refuses_a_split_that_shares_a_video_with(learned, split, tmp_path):
    videos = {name: f"video of {name}" for name in ("train", "meta", "val", "test")}
    shards = write_splits(tmp_path, videos | {split: videos[learned]})
    with pytest.raises(UserError, match=f"overlaps {split} by video_id"):
        _load._function(shards, DataConfig(), 0, None)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> str:
    """A small corpus of real clips; returns its folder."""
    return str(write_shards(tmp_path_factory.mktemp("corpus") / "shards"))


def load(shards: str, config: DataConfig, seed: int = 0) -> tuple[dict[str, pa.Table], dict]:
    *tables, _, _, summary = _load._function(shards, config, seed, None)  # what the remote task runs
    return dict(zip(("train", "meta", "val"), tables, strict=True)), summary


def sources_of(table: pa.Table) -> Counter:
    return Counter(caption["source"] for captions in table["captions"].to_pylist() for caption in captions)


@pytest.mark.ray
def test_captions_of_tables_come_to_train_alone_and_are_counted(corpus, tmp_path, ray_cluster):
    rows = captions_of(corpus, "train", "meta", "val", "test")
    rows[0] |= {"caption": None, "error": "unreadable"}
    rows[1] |= {"flags": ["cut_off"]}
    uri = write_table(tmp_path / "table", rows)
    data = load_run_data(corpus, DataConfig(caption_tables=(uri,)), seed=0, tokenizer=None)
    plain = load_run_data(corpus, DataConfig(), seed=0, tokenizer=None)
    train, meta, val = (ray_cluster.get(table) for table in (data.train, data.meta, data.val))
    assert sources_of(train) == {"human": 96, "generated": 94}
    for captions, clip_id in zip(train["captions"].to_pylist(), train["clip_id"].to_pylist(), strict=True):
        assert [caption["text"] for caption in captions[1:]] in ([], [f"a generated caption of {clip_id}"])
    assert (meta, val) == (ray_cluster.get(plain.meta), ray_cluster.get(plain.val))
    use = data.summary["caption_tables"][uri]
    assert {name: use[name] for name in ("used", "flagged", "errors", "other_clips")} == {
        "used": 94, "flagged": 1, "errors": 1, "other_clips": 48,
    }  # fmt: skip
    assert train.drop_columns("captions") == ray_cluster.get(plain.train).drop_columns("captions")
    assert (plain.summary["caption_tables"], data.summary["num_clips"]) == ({}, plain.summary["num_clips"])


def test_clips_without_a_caption_train_on_a_generated_one(tmp_path):
    shards = write_splits(tmp_path / "shards", {split: f"video of {split}" for split in ("train", "val")}, captions=())
    with pytest.raises(UserError, match="no training clips"):
        load(shards, DataConfig())
    uri = write_table(tmp_path / "table", captions_of(shards, "train", "val"))
    tables, summary = load(shards, DataConfig(caption_tables=(uri,)))
    assert tables["train"]["captions"].to_pylist() == [
        [{"text": "a generated caption of train0", "source": "generated"}]
    ]
    assert summary["num_uncaptioned"] == {"train": 0, "meta": 0, "val": 1, "test": 0}


def test_what_is_excluded_is_learned_from_no_more_and_a_corrected_caption_takes_its_place(corpus, tmp_path):
    plain, before = load(corpus, DataConfig())
    first, second, third = plain["train"].slice(0, 3).to_pylist()
    chosen = plain["meta"]["clip_id"][0].as_py()
    listed = [Exclusion(first["clip_id"]), Exclusion(chosen), Exclusion("of-another-corpus")]
    listed += [Exclusion(clip["clip_id"], caption_id(clip["captions"][0]["text"])) for clip in (second, third)]
    (tmp_path / "exclude.csv").write_text(exclusions_to_csv(listed))
    corrected = [row for row in captions_of(corpus, "train") if row["clip_id"] == third["clip_id"]]
    tables = (write_table(tmp_path / "corrected", corrected),)
    left, summary = load(corpus, DataConfig(exclude=str(tmp_path / "exclude.csv"), caption_tables=tables))
    texts = {row["clip_id"]: [one["text"] for one in row["captions"]] for row in left["train"].to_pylist()}
    assert not {first["clip_id"], second["clip_id"]} & set(texts)
    assert texts[third["clip_id"]] == [corrected[0]["caption"]]
    assert len(texts) == len(plain["train"]) - 2
    assert chosen not in left["meta"]["clip_id"].to_pylist()
    assert (left["val"], summary["excluded"]) == (plain["val"], {"clips": 2, "captions": 2})
    assert before["contents"]["data.exclude"] is None != summary["contents"]["data.exclude"]


def test_a_list_of_other_clips_is_refused(corpus, tmp_path):
    (tmp_path / "exclude.csv").write_text("clip_id\nof-another-corpus\n")
    with pytest.raises(UserError, match="names no clip"):
        load(corpus, DataConfig(exclude=str(tmp_path / "exclude.csv")))


def test_flags_that_are_not_excluded_are_used(corpus, tmp_path):
    rows = [row | {"flags": ["too_long"]} for row in captions_of(corpus, "train")]
    rows[5] |= {"flags": ["too_long", "refusal"]}
    uri = write_table(tmp_path / "table", rows)
    with pytest.raises(UserError, match=r"0 used, 96 flagged"):
        load(corpus, DataConfig(caption_tables=(uri,)))
    tables, summary = load(corpus, DataConfig(caption_tables=(uri,), exclude_flags=("refusal", "empty")))
    assert sources_of(tables["train"])["generated"] == summary["caption_tables"][uri]["used"] == 95


def test_a_drawn_meta_set_is_the_same_with_tables_as_without_and_has_human_captions_alone(corpus, tmp_path):
    uri = write_table(tmp_path / "table", captions_of(corpus, "train"))
    plain, _ = load(corpus, DataConfig(meta_draw=20))
    human, summary = load(corpus, DataConfig(meta_draw=20, caption_tables=(uri,), captions={"generated": 1.0}))
    assert (human["meta"], human["val"]) == (plain["meta"], plain["val"])
    assert human["train"]["clip_id"] == plain["train"]["clip_id"]
    assert summary["caption_tables"][uri]["used"] == sources_of(human["train"])["generated"] == 76
    mixed, _ = load(corpus, DataConfig(meta_draw=20, caption_tables=(uri,), meta_captions="all"))
    assert sources_of(mixed["meta"]) == {"human": 20, "generated": 20}


def test_the_meta_split_has_the_tables_captions_where_they_are_asked_for(corpus, tmp_path):
    uri = write_table(tmp_path / "table", captions_of(corpus, "train", "meta"))
    tables, summary = load(corpus, DataConfig(caption_tables=(uri,), meta_captions="all"))
    assert sources_of(tables["meta"]) == {"human": 16, "generated": 16}
    assert sources_of(tables["train"]) == {"human": 96, "generated": 96}
    assert summary["caption_tables"][uri]["used"] == 112


def test_what_is_drawn_is_a_mix_of_the_sources_keyed_by_seed_epoch_and_row(corpus, tmp_path):
    uri = write_table(tmp_path / "table", captions_of(corpus, "train", text="quux"))
    config = DataConfig(caption_tables=(uri,), captions={"human": 0.25, "generated": 0.75}, vocab_size=600)
    train, _, _, files, *_ = _load._function(corpus, config, 0, None)
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    assembler = ClipAssembler(
        *(Place.of(corpus), train, Tokenizer.from_directory(folder), 1, TransformConfig(image_size=32)),
        caption_probabilities=config.captions,
    )
    rows, epochs = np.repeat(np.arange(96), 4), np.tile(np.arange(4), 96)
    batch = assembler.assemble(rows, epochs)
    is_generated = (batch["token_ids"] == assembler.tokenizer(["quux"])[0]).all(axis=1)
    assert abs(is_generated.mean() - 0.75) < 0.06
    order = np.random.default_rng(0).permutation(len(rows))
    assert (assembler.assemble(rows[order], epochs[order])["token_ids"] == batch["token_ids"][order]).all()


def test_the_tokenizer_is_trained_on_generated_captions_too(corpus, tmp_path):
    uri = write_table(tmp_path / "table", captions_of(corpus, "train", text="zzyzx zzyzx zzyzx"))
    words = []
    for tables in ((), (uri,)):
        *_, files, _, _ = _load._function(corpus, DataConfig(caption_tables=tables), 0, None)
        words.append(json.loads(files["tokenizer.json"])["model"]["vocab"])
    assert ["zzyzx</w>" in known for known in words] == [False, True]


def test_word_pieces_are_trained_on_the_questions_of_train_too(corpus):
    config = DataConfig(tokenizer_kind="bert")
    *_, files, _, summary = _load._function(corpus, config, 0, None)
    model = json.loads(files["tokenizer.json"])["model"]
    assert model["type"] == "WordPiece" and summary["vocab_size"] == len(model["vocab"])
    assert "which" in model["vocab"]  # captions tell, they do not ask
    assert json.loads(files["tokenizer_config.json"])["tokenizer_class"] == "BertTokenizer"


def test_preset_with_another_kind_of_tokens_is_refused_before_anything_is_read():
    with pytest.raises(UserError, match="tokenizer_kind clip, wanted bert"):
        look_at_inputs(TrainJob(run="r", storage="/nowhere", model=ModelConfig(preset="violet_tiny")))
    with pytest.raises(UserError, match="tokenizer_kind bert, wanted clip"):
        look_at_inputs(TrainJob(run="r", storage="/nowhere", data=DataConfig(tokenizer_kind="bert")))


@pytest.mark.parametrize("settings", [{}, {"meta_draw": 20}, {"meta_captions": "all"}])
def test_no_column_of_a_split_ends_at_2_gib_whatever_was_joined_or_drawn(corpus, tmp_path, settings):
    uri = write_table(tmp_path / "table", captions_of(corpus, "train", "meta"))
    tables, _ = load(corpus, DataConfig(caption_tables=(uri,), **settings))
    for split, table in tables.items():
        assert len(table) and [(field.name, field.type) for field in table.schema] == [
            (name, MEMORY_SCHEMA.field(name).type) for name in table.column_names
        ], split


def test_a_table_that_is_not_finished_or_of_other_videos_is_refused(corpus, tmp_path):
    (tmp_path / "started").mkdir()
    with pytest.raises(UserError, match="no finished caption table"):
        load(corpus, DataConfig(caption_tables=(str(tmp_path / "started"),)))
    rows = captions_of(corpus, "train")
    rows[7] |= {"video_sha256": rows[8]["video_sha256"]}
    uri = write_table(tmp_path / "table", rows)
    with pytest.raises(UserError, match=f"{uri} was written from other videos.*1 captions.*{rows[7]['clip_id']}"):
        load(corpus, DataConfig(caption_tables=(uri,)))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"caption_mode": "paragraph", "caption_tables": ("t",)}, "would join"),
        ({"caption_tables": ("t", "t")}, "twice"),
    ],
)
def test_tables_that_would_be_joined_or_doubled_are_refused(settings, reason):
    with pytest.raises(ValueError, match=reason):
        DataConfig(**settings)


def test_a_config_that_names_every_flag_of_an_earlier_version_means_every_flag():
    earlier = tuple(flag for flag in FLAGS if flag not in ("grid", "markup"))
    assert DataConfig(exclude_flags=earlier) == DataConfig()
    assert "grid" in DataConfig().exclude_flags
    assert DataConfig().model_dump()["exclude_flags"] == earlier, "a run that was begun would be another one"
    assert DataConfig(exclude_flags=("grid",)).model_dump()["exclude_flags"] == ("grid",)
