"""Classes and sources of a run's clips: found, put into its batches, refused in one line where they cannot be."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
from pydantic import ValidationError

from mama_ray.data.batch import TARGET_PREFIX
from mama_ray.data.classes.names import IS_GENERATED
from mama_ray.data.index import CAPTIONS_TYPE, read_index, shard_sizes, write_index
from mama_ray.data.sources import SourcePlan
from mama_ray.errors import UserError
from mama_ray.models.heads.settings import ClassHeadConfig
from mama_ray.models.pretrained import from_preset
from mama_ray.orchestration.training.data import NO_TASK, _load, load_run_data
from mama_ray.orchestration.training.inputs import look_at_inputs
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.labels import build_class_head
from mama_ray.orchestration.training.run import train
from mama_ray.orchestration.training.settings import DataConfig
from mama_ray.orchestration.training.worker import _build_reader
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.places import Place
from tests.orchestration.runs.training_runs import write_shards


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> str:
    return str(write_shards(tmp_path_factory.mktemp("corpus") / "shards"))


def load(shards: str, config: DataConfig, **options: bool) -> tuple[dict[str, pa.Table], dict]:
    *tables, _, _, summary = _load._function(shards, config, 0, None, None, False, NO_TASK, True, **options)
    return dict(zip(("train", "meta", "val"), tables, strict=True)), summary


def test_the_embedded_corpus_has_classes_of_its_own(corpus):
    tables, summary = load(corpus, DataConfig())
    assert summary["classes"]["sizes"]["verb"] <= 8 and summary["classes"]["sizes"]["noun"] <= 8
    assert summary["contents"]["data.classes"] == summary["classes"]["sha256"]
    for table in tables.values():
        assert all(table["classes/verb"].to_pylist()) and all(table["classes/action"].to_pylist())


def test_classes_of_a_file_are_those_of_every_clip_or_the_clip_is_named(corpus, tmp_path):
    ids = [clip_id for table in load(corpus, DataConfig())[0].values() for clip_id in table["clip_id"].to_pylist()]
    (tmp_path / "all.json").write_text(json.dumps({clip_id: {"action": 3} for clip_id in ids}))
    tables, summary = load(corpus, DataConfig(classes=(str(tmp_path / "all.json"),)))
    assert summary["classes"]["sizes"] == {"action": 4}
    assert tables["val"]["classes/action"].to_pylist() == [[3]] * len(tables["val"])
    (tmp_path / "few.json").write_text(json.dumps({clip_id: {"action": 3} for clip_id in ids[1:]}))
    with pytest.raises(UserError, match=f"clips without classes.*among them {ids[0]}"):
        load(corpus, DataConfig(classes=(str(tmp_path / "few.json"),)))


def test_relevance_of_actions_alone_is_refused_when_the_classes_are_read(corpus, tmp_path):
    ids = [clip_id for table in load(corpus, DataConfig())[0].values() for clip_id in table["clip_id"].to_pylist()]
    (tmp_path / "all.json").write_text(json.dumps({clip_id: {"action": 3} for clip_id in ids}))
    files = (str(tmp_path / "all.json"),)
    message = "no relevance of texts to clips: got classes of action in .*all.json, wanted verbs and nouns"
    with pytest.raises(UserError, match=message):
        load(corpus, DataConfig(classes=files, positive_relevance=0.1))
    with pytest.raises(UserError, match=message):
        load(corpus, DataConfig(classes=files), needs_relevance=True)
    load(corpus, DataConfig(), needs_relevance=True)  # whose verbs are motions
    assert TrainJob.model_validate({"objective": {"loss": "multi_similarity"}}).needs_relevance


def test_heads_are_of_kinds_that_clips_have_and_wide_enough():
    model = from_preset("tiny", {"vocab_size": 600, "context_length": 16})
    head = build_class_head(ClassHeadConfig(kinds=("verb",), num_classes={"verb": 97}), {"verb": 90}, model)
    assert head.sizes == {"verb": 97}
    with pytest.raises(UserError, match="no clip has a noun.*got classes of verb"):
        build_class_head(ClassHeadConfig(kinds=("noun",)), {"verb": 3}, model)
    with pytest.raises(UserError, match="num_classes of verb.*got 2.*at least 3"):
        build_class_head(ClassHeadConfig(kinds=("verb",), num_classes={"verb": 2}), {"verb": 3}, model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": {"shares": {"human": 0.5, "generated": 0.6}}}, "shares must sum to 1: got 1.1"),
        ({"data": {"shares": {"human": 1.0}, "captions": {"human": 1.0}}}, "give no captions"),
        ({"data": {"shares": {"human": 1.0}, "positive_relevance": 0.1}}, "give no shares"),
        (
            {"data": {"shares": {"human": 1.0}}, "task": {"kind": "question_answering"}},
            "data.shares is about texts",
        ),
        ({"data": {"flip": 0.5}}, "left of right"),
        ({"data": {"flip": 0.5, "features": "table"}}, "give no features"),
        ({"objective": {"generated_scale": 10.0}}, "give data.shares"),
        ({"objective": {"loss": "max_margin", "margin": 0.2}}, "would take off again"),
        ({"optim": {"optimizer": "sgd"}, "meta": {"inner": {"optimizer": "adam"}}}, "takes the state of AdamW"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message) as caught:
        TrainJob.model_validate(settings)
    assert caught.value.error_count() == 1


def test_a_share_of_a_source_that_no_clip_has_is_told_when_the_clips_are_loaded(corpus):
    with pytest.raises(UserError, match="no clip has a caption of source generated"):
        load(corpus, DataConfig(shares={"human": 0.5, "generated": 0.5}))


def test_a_file_of_classes_that_is_not_there_is_told_before_ray_starts(corpus, tmp_path):
    job = TrainJob(shards=corpus, storage=str(tmp_path), data=DataConfig(classes=(str(tmp_path / "no.csv"),)))
    with pytest.raises(UserError, match=r"no file of classes.*no\.csv"):
        look_at_inputs(job)


def with_generated_captions(shards: Path) -> Path:
    """Give every training clip a generated caption, and every second one nothing else; rewrites the index."""
    table = read_index(Place.of(shards))
    captions = []
    for row, (own, split) in enumerate(zip(table["captions"].to_pylist(), table["split"].to_pylist(), strict=True)):
        made = [{"text": f"generated {row}", "source": "generated"}] if split == "train" else []
        captions.append(made if made and row % 2 else own + made)
    place = table.schema.get_field_index("captions")
    rewritten = table.set_column(place, "captions", pa.array(captions, CAPTIONS_TYPE))
    write_index(Place.of(shards), [rewritten], shard_sizes(table))
    return shards


@pytest.mark.ray
def test_a_run_has_the_shares_of_its_sources_and_knows_which_texts_are_generated(ray_cluster, tmp_path):
    shards = with_generated_captions(write_shards(tmp_path / "shards"))
    settings = {"shards": str(shards), "storage": str(tmp_path), "run": "two", "log_every": 1, "num_workers": 1}
    settings |= {"data": {"num_frames": 2, "shares": {"human": 0.25, "generated": 0.75, "asr": 0.0}}}
    settings |= {"global_batch_size": 16, "num_epochs": 0.5, "meta": {"batch_size": 8, "meta_every": 1}}
    job = TrainJob.model_validate(settings | {"objective": {"generated_scale": 10.0}})
    data = load_run_data(str(shards), job.data, seed=job.seed, tokenizer=None)
    sizes = {name: data.summary[name] for name in ("vocab_size", "context_length")}
    reader = _build_reader(job, data, from_preset("tiny", sizes | {"num_frames": 2}))
    plan = reader.epoch_plan()
    assert isinstance(plan, SourcePlan)
    samples, epochs = plan.rows(0, 96)
    arrays = reader.assembler().assemble(samples[:24], epochs[:24])
    is_generated = arrays[TARGET_PREFIX + IS_GENERATED]
    clips = ray.get(data.train)["captions"].to_pylist()
    for row, ids, generated in zip(arrays["rows"], arrays["token_ids"], is_generated, strict=True):
        texts = [one["text"] for one in clips[row] if (one["source"] == "generated") == generated]
        assert ids.tolist() in reader.tokenizer()(texts).tolist()
    assert np.bincount(samples // len(clips)).tolist() == [72, 24]  # generated, human
    assert not reader.meta_clips(data.meta).assemble(np.arange(3))[TARGET_PREFIX + IS_GENERATED].any()
    train(job)
    records = [record for record in read_metrics(Place.of(tmp_path / "two")) if "train/loss" in record]
    assert len(records) == 3 and all(record["meta/loss"] > 0 for record in records)
    assert all(any(name.startswith("weights/") and name.endswith("/mean") for name in record) for record in records)
