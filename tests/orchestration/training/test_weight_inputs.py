"""A run whose weight net sees more than the loss: what it reads, what is refused, and that it goes on."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from mama_ray.data.batch import WEIGHT_INPUTS
from mama_ray.errors import UserError
from mama_ray.models.weight_files import read_safetensors
from mama_ray.orchestration.training.data import NO_TASK, _load
from mama_ray.orchestration.training.inputs import look_at_inputs
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import train
from mama_ray.orchestration.training.settings import DataConfig
from mama_ray.reporting.content import RunReport
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.places import Place
from mama_ray.weighting.settings import WeightingConfig
from tests.orchestration.runs.training_runs import write_shards

INPUTS = ("loss", "loss_video_to_text", "cosine", "average_loss", "agreement", "source", "topic")


NO_DATA = DataConfig()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("corpus") / "shards")


def load(shards: Path, weighting: WeightingConfig, data: DataConfig = NO_DATA):
    arguments = (str(shards), data, 0, None, None, False, NO_TASK, False, False)
    train_table, _, val, _, _, summary = _load._function(*arguments, weighting=weighting)
    return train_table, val, summary


def test_a_drawn_source_that_no_training_clip_has_is_told(corpus, caplog):
    load(corpus, WeightingConfig(), DataConfig(captions={"human": 1.0, "generated": 0.0}))
    assert not caplog.records
    load(corpus, WeightingConfig(), DataConfig(captions={"human": 1.0, "rephrased": 0.5}))
    assert "data.captions draws of rephrased, and no training clip has" in caplog.text


def write_agreement(corpus: Path, path: Path) -> str:
    ids = load(corpus, WeightingConfig())[0]["clip_id"].to_pylist()
    path.write_text("clip_id,agreement\n" + "".join(f"{name},{number / 7}\n" for number, name in enumerate(ids)))
    return str(path)


def test_training_alone_gets_columns_and_the_run_knows_their_hash(corpus, tmp_path):
    topics = tuple(sorted(set(load(corpus, WeightingConfig())[0]["topic"].to_pylist())))[:2]
    config = WeightingConfig(
        inputs=("loss", "topic", "agreement", "source"),
        features=write_agreement(corpus, tmp_path / "agreement.csv"),
        categories={"topic": topics, "source": ("human", "generated")},
    )
    table, val, summary = load(corpus, config)
    columns = np.array(table[WEIGHT_INPUTS].to_pylist())
    np.testing.assert_allclose(columns[:, 1], np.arange(len(table)) / 7, rtol=1e-6)
    expected = [topics.index(topic) if topic in topics else np.nan for topic in table["topic"].to_pylist()]
    np.testing.assert_array_equal(columns[:, 0], expected)
    assert WEIGHT_INPUTS not in val.column_names
    assert summary["drawn_source"] == [2, ["human", "generated"]]
    assert len(summary["contents"]["weighting.features"]) == 64
    assert "weighting.features" not in load(corpus, WeightingConfig())[2]["contents"]
    json.dumps(summary)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"weighting": {"inputs": ["agreement"]}}, "give weighting.features"),
        ({"weighting": {"inputs": ["source"], "categories": {"source": ["asrr"]}}}, "unknown source.*did you mean asr"),
        ({"weighting": {"inputs": ["cosine"], "features": "f.csv"}}, "name its columns in weighting.inputs"),
        (
            {"weighting": {"inputs": ["cosine"]}, "task": {"kind": "question_answering", "contrast": False}},
            "cosine is of the contrast",
        ),
        (
            {
                "weighting": {"inputs": ["source"], "categories": {"source": ["human"]}},
                "data": {"positive_relevance": 0},
            },
            "source is that of a clip's own text",
        ),
    ],
)
def test_inputs_that_are_not_there_are_refused(settings, told):
    with pytest.raises(ValidationError, match=told) as caught:
        TrainJob.model_validate(settings)
    assert caught.value.error_count() == 1


def test_a_table_that_is_not_there_is_told_before_ray_starts(corpus, tmp_path):
    weighting = WeightingConfig(inputs=("agreement",), features=str(tmp_path / "none.csv"))
    job = TrainJob(shards=str(corpus), storage=str(tmp_path), weighting=weighting)
    with pytest.raises(UserError, match=r"no table of weighting\.features.*none\.csv"):
        look_at_inputs(job)


@pytest.mark.ray
def test_a_run_with_all_inputs_goes_on_and_logs_them(ray_cluster, corpus, tmp_path):
    settings = {"shards": str(corpus), "storage": str(tmp_path), "log_every": 1, "num_workers": 1, "num_epochs": 1.0}
    settings |= {"data": {"num_frames": 2}, "global_batch_size": 16, "optim": {"warmup_share": 0, "final_lr_share": 1}}
    settings["weighting"] = {
        "inputs": INPUTS,
        "features": write_agreement(corpus, tmp_path / "agreement.csv"),
        "categories": {"source": ["human"], "topic": ["circle", "square"]},
    }
    settings |= {"run": "seen", "meta": {"batch_size": 8, "meta_every": 1, "margin": "per_sample"}}
    for epochs in (0.5, 1.0):
        train(TrainJob.model_validate(settings | {"num_epochs": epochs}))
    last = tmp_path / "seen/checkpoints/step_00000006"
    averages = read_safetensors(last / "average_loss.safetensors")["average_loss"]
    assert len(averages) == 96 and averages.isfinite().all()
    records = read_metrics(Place.of(tmp_path / "seen"))
    logged = [record for record in records if "train/loss" in record]
    assert all(record[f"inputs/{name}/sensitivity"] >= 0 for record in logged for name in INPUTS)
    assert all(record["meta/margin_gradient_norm"] > 0 for record in logged)
    report = RunReport("seen", records)
    assert set(report.input_curves()) == {"loss_video_to_text", "cosine", "average_loss", "agreement"}
    assert report.weight_curve() is not None
    assert set(report.input_weights()["source"]) == {"human"} and "other" in report.input_weights()["topic"]
    changed = tmp_path / "agreement.csv"
    changed.write_text(changed.read_text().replace(",0.0\n", ",0.5\n"))
    with pytest.raises(UserError, match=r"began with other contents of weighting\.features"):
        train(TrainJob.model_validate(settings | {"num_epochs": 1.5}))
