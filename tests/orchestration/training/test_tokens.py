"""Weights with the tokenizer of another model are refused before a worker starts; cut captions are told."""

import pytest
import ray

from mama_ray.config import with_overrides
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.errors import UserError
from mama_ray.models.pretrained import from_preset, save_pretrained
from mama_ray.orchestration.training.data import load_run_data
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import train
from mama_ray.orchestration.training.tokens import require_models_sizes, require_models_tokenizer, tell_captions
from tests.orchestration.runs.training_runs import SETTINGS, write_shards

CAPTIONS = ["a red circle moves to the left and a blue square stays"] * 2
OTHERS = ["one dog runs on the grass near a lake", "two people cook dinner in a kitchen"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> str:
    return str(write_shards(tmp_path_factory.mktemp("corpus") / "shards"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """A small model with its own tokenizer, as a run leaves one."""
    folder = tmp_path_factory.mktemp("weights") / "model"
    tokenizer = Tokenizer.train(CAPTIONS, vocab_size=530, context_length=12)
    model = from_preset("tiny", {"vocab_size": tokenizer.vocab_size, "context_length": 12, "num_frames": 4})
    save_pretrained(model, folder, tokenizer)
    return str(folder)


@pytest.fixture
def job(shards, weights, tmp_path) -> TrainJob:
    settings = {"shards": shards, "storage": str(tmp_path), "run": "mine", "model.pretrained": weights}
    return with_overrides(TrainJob.model_validate(SETTINGS), settings)


def files_of(tokenizer: Tokenizer, folder) -> ray.ObjectRef:
    tokenizer.save(folder)
    return ray.put({path.name: path.read_bytes() for path in folder.iterdir()})


@pytest.mark.ray
@pytest.mark.parametrize(
    ("texts", "vocab_size", "context_length", "told"),
    [
        (CAPTIONS, 530, 16, "vocabulary 530, context 16,"),
        (CAPTIONS, 525, 12, "vocabulary 525, context 12, start token 523, end token 524"),
        (OTHERS, 530, 12, "end token 529, "),
    ],
)
def test_another_tokenizer_is_refused_with_both(ray_cluster, job, tmp_path, texts, vocab_size, context_length, told):
    other = Tokenizer.train(texts, vocab_size=vocab_size, context_length=context_length)
    job = with_overrides(job, {"data.tokenizer": str(tmp_path / "other")})
    with pytest.raises(UserError) as refused:
        require_models_tokenizer(job, files_of(other, tmp_path / "other"))
    message = str(refused.value)
    assert message.startswith(f"the tokenizer is not that of the pretrained weights: got {tmp_path}/other: vocabulary")
    assert told in message and "\n" not in message
    assert f"wanted {job.model.pretrained}: vocabulary 530, context 12, start token 528, end token 529" in message


@pytest.mark.ray
def test_a_run_with_another_tokenizer_ends_before_it_begins(ray_cluster, job, tmp_path):
    Tokenizer.train(OTHERS, vocab_size=530, context_length=12).save(tmp_path / "other")
    with pytest.raises(UserError, match="the tokenizer is not that of the pretrained weights"):
        train(with_overrides(job, {"data.tokenizer": str(tmp_path / "other")}))
    assert not (tmp_path / "mine" / "checkpoints").exists()


@pytest.mark.ray
def test_captions_that_the_context_cuts_are_counted_and_told(ray_cluster, job, caplog):
    data = load_run_data(job.shards, job.data, seed=0, tokenizer=job.model.pretrained)
    require_models_tokenizer(job, data.tokenizer_files)
    counts = data.summary["captions"]
    assert counts["num_captions"] == data.summary["num_clips"]["train"]
    assert (counts["context_length"], counts["num_unknown"]) == (12, 0)
    texts = [caption["text"] for captions in ray.get(data.train)["captions"].to_pylist() for caption in captions]
    whole = Tokenizer.from_directory(job.model.pretrained, context_length=200)
    lengths = [int(row.argmax()) + 1 for row in whole(texts)]
    assert 0 < counts["num_cut"] == sum(length > 12 for length in lengths)
    assert counts["longest"] == max(lengths)
    tell_captions(job, data.summary)
    (line,) = [record.message for record in caplog.records if "tokens" in record.message]
    assert "captions are longer than 12 tokens and lose their end" in line and "longer context" in line


def test_a_released_file_of_other_sizes_is_refused_when_it_is_read(job):
    config = from_preset("tiny", {"vocab_size": 530, "context_length": 12}).config
    require_models_sizes(job, config, {"vocab_size": 530, "context_length": 12})
    with pytest.raises(UserError, match=r"context_length differs: got .*: 24, wanted .*: 12"):
        require_models_sizes(job, config, {"vocab_size": 530, "context_length": 24})
