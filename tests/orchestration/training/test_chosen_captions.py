"""A run that learns from clips' own texts and generated ones: what it reads, logs and keeps."""

import numpy as np
import pyarrow as pa
import pytest
import ray

from mama_ray.data.batch import GENERATED_IDS, TARGET_PREFIX
from mama_ray.data.classes.names import HAS_GENERATED
from mama_ray.errors import UserError
from mama_ray.models.pretrained import from_preset
from mama_ray.models.weight_files import read_safetensors
from mama_ray.orchestration.training.data import load_run_data
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import train
from mama_ray.orchestration.training.split_choice import require_generated
from mama_ray.orchestration.training.worker import _build_reader
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.places import Place
from tests.orchestration.runs.training_runs import write_shards
from tests.orchestration.training.test_labels import with_generated_captions


def test_clips_without_any_generated_caption_are_refused():
    clips = pa.table({"captions": [[{"text": "a ball", "source": "human"}], [{"text": "one", "source": "rephrased"}]]})
    with pytest.raises(UserError, match=r"no training clip has a generated caption.*got 2 clips"):
        require_generated(clips, None)


@pytest.mark.ray
def test_a_run_learns_the_share_of_generated_captions(ray_cluster, tmp_path):
    shards = with_generated_captions(write_shards(tmp_path / "shards"))
    settings = {"shards": str(shards), "storage": str(tmp_path), "run": "chosen", "log_every": 1, "num_workers": 1}
    settings |= {"data": {"num_frames": 2}, "global_batch_size": 16, "weighting": {"kind": "uniform"}}
    settings |= {"meta": {"batch_size": 8, "meta_every": 1}, "objective": {"generated_share": "learned"}}
    job = TrainJob.model_validate(settings | {"num_epochs": 0.5})
    data = load_run_data(str(shards), job.data, seed=job.seed, tokenizer=None, mixes_captions=True)
    sizes = {name: data.summary[name] for name in ("vocab_size", "context_length")}
    reader = _build_reader(job, data, from_preset("tiny", sizes | {"num_frames": 2}))
    arrays = reader.assembler().assemble(np.arange(12), np.zeros(12, int))
    clips = ray.get(data.train)["captions"].to_pylist()
    for row, own, told, has in zip(
        arrays["rows"], arrays["token_ids"], arrays[GENERATED_IDS], arrays[TARGET_PREFIX + HAS_GENERATED], strict=True
    ):
        of_row = [one["text"] for one in clips[row] if one["source"] == "generated"]
        ids = reader.tokenizer()(of_row).tolist()
        assert has == (len(clips[row]) > len(of_row)) and told.tolist() in ids
        assert (own.tolist() in ids) == (not has)  # odd rows have nothing but a generated caption
    assert GENERATED_IDS not in reader.meta_clips(data.meta).assemble(np.arange(3))
    train(job)
    kept = read_safetensors(tmp_path / "chosen/checkpoints/step_00000003/dials.safetensors")
    assert {name.split(".")[0] for name in kept} == {"generated_share"}
    records = [record for record in read_metrics(Place.of(tmp_path / "chosen")) if "train/loss" in record]
    assert len(records) == 3 and all(record["meta/generated_share_gradient_norm"] > 0 for record in records)
    assert records[0]["captions/generated_share"] == pytest.approx(0.5)
    assert all(0.2 < record["captions/generated"] < 0.8 for record in records)
    assert any(name.startswith("captions/") and name.endswith("/share") for name in records[-1])
    assert records[-1]["captions/generated_share"] != records[0]["captions/generated_share"]
