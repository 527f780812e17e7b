"""The audit of a run: blamed is the caption that was read, and what is written is what training takes."""

import csv
import json

import numpy as np
import pyarrow as pa
import pytest

from mama_ray.auditing.table import read_audit
from mama_ray.captioning.table import read_caption_files
from mama_ray.config import with_overrides
from mama_ray.data.assemble import ClipAssembler
from mama_ray.data.index import read_index
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.audit.inputs import read_training, which_caption
from mama_ray.orchestration.audit.job import AuditJob
from mama_ray.orchestration.audit.run import run
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import train
from mama_ray.storage.places import Place
from tests.orchestration.captioning.caption_tables import captions_of, write_table
from tests.orchestration.runs.training_runs import SETTINGS, write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> str:
    return str(write_shards(tmp_path_factory.mktemp("corpus") / "shards"))


@pytest.mark.parametrize(("mix", "share"), [(None, None), ({"human": 0.5, "generated": 0.5}, None), (None, 0.5)])
def test_the_caption_that_is_blamed_is_the_one_that_the_batch_had(shards, mix, share):
    clips = read_index(Place.of(shards)).slice(0, 12)
    texts = [[own[0]["text"], f"written of it {row}", f"and once more {row}"] for row, own in
             enumerate(clips["captions"].to_pylist())]  # fmt: skip
    captions = pa.array(
        [[{"text": text, "source": "generated" if place else "human"} for place, text in enumerate(own)]
         for own in texts], clips.schema.field("captions").type)  # fmt: skip
    clips = clips.set_column(clips.schema.get_field_index("captions"), "captions", captions)
    tokenizer = Tokenizer.train([text for own in texts for text in own], vocab_size=600, context_length=24)
    training = with_overrides(TrainJob(), {"seed": 5, "data.captions": mix, "objective.generated_share": share})
    assembler = ClipAssembler(
        Place.of(shards), clips, tokenizer, num_frames=2, transform=TransformConfig(image_size=32),
        caption_probabilities=mix, generated_apart=share is not None, seed=5,
    )  # fmt: skip
    drawn, places = which_caption(captions, training), []
    for epoch in range(4):
        rows, epochs = np.arange(12), np.full(12, epoch)
        found = drawn(rows, rows, epochs)
        wanted = tokenizer([texts[row][place] for row, place in enumerate(found)])
        assert np.array_equal(assembler.assemble(rows, epochs)["token_ids"], wanted)
        places += found.tolist()
    assert set(places) == ({0, 1, 2} if share is None else {0})


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_is_audited_and_the_next_one_learns_from_what_is_left(ray_cluster, shards, tmp_path):
    settings = {"shards": shards, "storage": str(tmp_path), "num_workers": 1, "num_epochs": 1.0}
    job = with_overrides(TrainJob.model_validate(SETTINGS), settings | {"weighting.kind": "uniform"})
    train(with_overrides(job, {"run": "noted", "record.every": 1}))
    generated = write_table(tmp_path / "generated", captions_of(shards, "train", text="a big red circle {}"))
    line = run(AuditJob(run=str(tmp_path / "noted"), captions=(generated,), by="loss", share=0.25))
    assert line.startswith("audited 96 clips, 24 captions to leave out")
    folder = tmp_path / "noted/audit"
    table = read_audit(Place.of(folder))
    assert set(table["num_records"].to_pylist()) == {1}
    assert all(len(losses) == 1 for losses in table["loss_by_epoch"].to_pylist())
    rows = {row["clip_id"]: row for row in table.to_pylist()}
    listed = list(csv.DictReader((folder / "exclude.csv").open(encoding="utf-8-sig")))
    worst = sorted(rows.values(), key=lambda row: -row["loss"])[:24]
    assert {row["clip_id"] for row in listed} == {row["clip_id"] for row in worst}
    rewritten = {row["clip_id"] for row in worst if row["better_text"]}
    assert 0 < len(rewritten) < 24, "some of them fit better by chance, some do not"
    (corrected,) = read_caption_files(Place.of(folder / "corrected"))
    assert set(corrected["clip_id"].to_pylist()) == rewritten
    page = (folder / "index.html").read_text()
    assert worst[0]["caption"].replace("'", "&#39;") in page and str(tmp_path / "noted") in page
    mended = {"data.exclude": str(folder / "exclude.csv"), "data.caption_tables": [str(folder / "corrected")]}
    train(with_overrides(job, {"run": "mended"} | mended))
    data = json.loads((tmp_path / "mended/environment.json").read_text())["data"]
    assert data["num_clips"]["train"] == 96 - 24 + len(rewritten)
    assert data["excluded"] == {"clips": 0, "captions": 24}
    with pytest.raises(UserError, match="recorded nothing"):
        run(AuditJob(run=str(tmp_path / "mended")))


def test_what_is_no_run_is_told_before_anything_starts(tmp_path):
    with pytest.raises(UserError, match="not the folder of a run"):
        read_training(AuditJob(run=str(tmp_path)))
    (tmp_path / "config.yaml").write_text("num_epochs: 1\n")
    with pytest.raises(UserError, match="no checkpoint"):
        read_training(AuditJob(run=str(tmp_path)))
