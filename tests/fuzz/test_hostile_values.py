"""Files whose form is right and whose values are not: each is one line before time or memory is spent on it."""

import json
import sqlite3
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mama_ray.captioning.table import CAPTION_SCHEMA, file_name, read_caption_files
from mama_ray.config import Config, ConfigError, load_config
from mama_ray.data.index import INDEX_NAME, read_index
from mama_ray.errors import UserError
from mama_ray.models.pretrained import describe_model, from_pretrained
from mama_ray.models.run_config import training_config
from mama_ray.orchestration.sweep.database import StudyStore
from mama_ray.storage.places import Place
from tests.data.shard_factory import write_dataset
from tests.encoder.tiny_encoder import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("video", "num_layers"), 10**6),
        (("video", "num_layers"), 200),  # within bounds, and not what the weights have
        (("text", "width"), 60_000),
        (("num_frames",), 10**18),
        (("num_frames",), 10**4),
        (("vocab_size",), 4_000_000),
        (("logit_scale", "max"), float("inf")),
        (("dim",), "x" * 100_000),
    ],
)
def test_a_model_config_that_is_not_that_of_its_weights_takes_no_time_and_no_memory(model, path, value):
    good = (model / "config.json").read_text()
    content = json.loads(good)
    holder = content
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = value
    (model / "config.json").write_text(json.dumps(content))
    try:
        for read in (describe_model, from_pretrained):
            started = time.monotonic()
            with pytest.raises(UserError) as refused:
                read(model)
            assert time.monotonic() - started < 30  # of a busy machine; on an idle one it is less than 2
            assert len(str(refused.value)) < 2000
    finally:
        (model / "config.json").write_text(good)


@pytest.mark.parametrize(
    "text", ["a: &a [1]\nb: *a\n", "a: !!python/name:os.system\n", "a: " + "[" * 9000, "- 1\n", "a: 1\na: 2\n"]
)
def test_settings_beside_foreign_weights_are_plain_or_told(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match="mend or remove it"):
        training_config(tmp_path / "config.yaml")


class _Job(Config):
    name: str = "a"
    rate: float = 1.0
    count: int = 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rate: .inf", "a finite number"),
        ("rate: .nan", "a finite number"),
        ("count: 12345678901234567890", "64 bits at most"),
        ("name: " + "x" * 100_000, "at most 65536"),
    ],
)
def test_values_that_nothing_can_hold_do_not_pass_as_settings(tmp_path, text, told):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=told):
        load_config(_Job, tmp_path / "a.yaml")


def test_a_database_that_is_no_study_is_told_and_stays_as_it_is(tmp_path):
    path = tmp_path / "study.db"
    for statement in ("CREATE TABLE songs (name TEXT)", "CREATE VIEW studies AS SELECT 1"):
        with sqlite3.connect(path) as database:
            database.execute(statement)
        database.close()
        before = path.read_bytes()
        with pytest.raises(UserError, match="not a study of Optuna"):
            StudyStore(None, "sweep", Place.of(tmp_path))
        assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("column", "value"), [("shard", "../../a.tar"), ("shard", "/etc/passwd"), ("num_bytes", 1 << 50), ("offset", -1)]
)
def test_an_index_that_leads_out_of_its_shards_is_told(tmp_path, column, value):
    write_dataset(tmp_path, [3])
    table = pq.read_table(tmp_path / INDEX_NAME)
    values = pa.array([value] * len(table), table.schema.field(column).type)
    position = table.schema.get_field_index(column)
    pq.write_table(table.set_column(position, table.schema.field(column), values), tmp_path / INDEX_NAME)
    with pytest.raises(UserError, match="does not list|leads out of its shards|not sorted"):
        read_index(Place.of(tmp_path))


@pytest.mark.parametrize(
    "sizes", [[], {"../a.tar": {"num_bytes": 1, "num_clips": 1}}, {"a.tar": {"num_bytes": "1"}}, {"a.tar": 1}]
)
def test_an_index_with_an_odd_list_of_shards_is_told(tmp_path, sizes):
    write_dataset(tmp_path, [3])
    table = pq.read_table(tmp_path / INDEX_NAME)
    metadata = table.schema.metadata | {b"mama_ray.shards": json.dumps(sizes).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / INDEX_NAME)
    with pytest.raises(UserError, match="not of its form"):
        read_index(Place.of(tmp_path))


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("caption", pa.array([1, 2]), "caption is int64"),
        ("flags", pa.array(["a", "b"]), "flags is string"),
        ("clip_id", None, "clip_id is missing"),
    ],
)
def test_a_caption_table_of_other_columns_is_told(tmp_path, name, values, told):
    row = dict.fromkeys(CAPTION_SCHEMA.names) | {"clip_id": "a", "caption": "a dog", "flags": []}
    table = pa.Table.from_pylist([row] * 2, schema=CAPTION_SCHEMA)
    position = table.column_names.index(name)
    table = table.remove_column(position) if values is None else table.set_column(position, name, values)
    pq.write_table(table, tmp_path / file_name(0))
    (tmp_path / "captions.json").write_text(json.dumps({"version": 2, "files": {file_name(0): 2}}))
    with pytest.raises(UserError, match=told):
        list(read_caption_files(Place.of(tmp_path), columns=["clip_id", "caption", "flags"]))
    (tmp_path / "captions.json").write_text(json.dumps({"version": 2, "files": {"../x.parquet": 2}}))
    with pytest.raises(UserError, match="no plain name"):
        list(read_caption_files(Place.of(tmp_path)))
