"""What a user can get wrong before captions are written: one clear error each, and nothing begun."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import CLIPConfig

from mama_ray.config import ConfigError, parse_config
from mama_ray.errors import UserError
from mama_ray.models.weight_files import INDEX_NAME
from mama_ray.orchestration.captioning.job import CaptionJob
from mama_ray.orchestration.captioning.run import caption
from tests.captioning.tiny_models import write_llava
from tests.orchestration.prepare.spoiled_shards import write_shards

ROOT = Path(__file__).resolve().parents[3]
SECRET = "the-secret-of-this-test"


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "shards"
    write_shards(folder, lambda row, video: video, count=4)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_llava(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def spoiled(model, tmp_path) -> Path:
    """A copy of the model to spoil."""
    return shutil.copytree(model, tmp_path / "model")


def refusal(output: Path | str, **fields) -> str:
    """Return the error of a job, which has not so much as begun a table."""
    with pytest.raises(UserError) as refused:
        caption(CaptionJob(output=str(output), **{name: str(value) for name, value in fields.items()}))
    message = str(refused.value)
    assert "\n" not in message and "Traceback" not in message
    if "://" not in str(output):
        assert not any(Path(output).rglob("*")), "something was begun"
    return message


@pytest.mark.ray
def test_shards_that_are_not_there_are_named(ray_cluster, model, tmp_path):
    message = refusal(tmp_path / "table", shards=tmp_path / "nowhere", model=model)
    assert message == f"no index of clips: got {tmp_path}/nowhere/index.parquet; make one with jobs/prepare.py"


@pytest.mark.ray
def test_a_truncated_shard_is_named(ray_cluster, shards, model, tmp_path):
    copy = shutil.copytree(shards, tmp_path / "shards")
    data = (copy / "clips-000001.tar").read_bytes()
    (copy / "clips-000001.tar").write_bytes(data[:-2000])
    message = refusal(tmp_path / "table", shards=copy, model=model)
    assert f"clips-000001.tar (truncated: {len(data) - 2000} of {len(data)} bytes)" in message


@pytest.mark.ray
def test_a_split_without_clips_is_told(ray_cluster, shards, model, tmp_path):
    message = refusal(tmp_path / "table", shards=shards, model=model, split="val")
    assert message == f"no clips to caption: got {shards}, split val, wanted train (4 clips)"


@pytest.mark.ray
def test_a_model_that_is_not_there_is_named(ray_cluster, shards, tmp_path):
    missing = tmp_path / "no-model"
    assert f"no such model: got {missing}, wanted" in refusal(tmp_path / "a", shards=shards, model=missing)
    assert "no/such-model" in refusal(tmp_path / "b", shards=shards, model="no/such-model")


@pytest.mark.ray
def test_a_folder_that_holds_no_llava_is_told(ray_cluster, shards, spoiled, tmp_path):
    CLIPConfig(architectures=["CLIPModel"]).save_pretrained(spoiled)
    message = refusal(tmp_path / "table", shards=shards, model=spoiled)
    assert "unknown architecture of a captioner: got CLIPModel, wanted one of Llava" in message


@pytest.mark.ray
def test_damaged_weights_are_named(ray_cluster, shards, spoiled, tmp_path):
    path = spoiled / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert f"weights are damaged: got {path}" in refusal(tmp_path / "table", shards=shards, model=spoiled)
    (spoiled / INDEX_NAME).write_text(json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}))
    assert "weights are missing" in refusal(tmp_path / "table", shards=shards, model=spoiled)


@pytest.mark.ray
def test_a_prompt_without_the_picture_is_told_and_an_unknown_one_lists_the_known(ray_cluster, shards, model, tmp_path):
    prompt = tmp_path / "prompt.yaml"
    prompt.write_text("text: 'USER: what is it? ASSISTANT:'\nform: raw\n")
    message = refusal(tmp_path / "table", shards=shards, model=model, prompt=prompt)
    assert "wanted the image token <image> exactly once" in message
    message = refusal(tmp_path / "table", shards=shards, model=model, prompt="sentense")
    assert message.startswith("unknown prompt: got sentense, wanted one of sentence") and "paragraph" in message


def test_an_output_with_a_file_in_its_way_is_told(shards, model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    message = refusal(tmp_path / "file" / "table", shards=shards, model=model)
    assert f"storage is not writable: got {tmp_path}/file/table" in message


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--frames.key-frames.num-frames", "11"], "num_frames 11 is not layout.rows x layout.columns = 3 x 4 = 12"),
        (["--frames.layout.columns", "3"], "num_frames 12 is not layout.rows x layout.columns = 3 x 3 = 9"),
        (["--pool.min-size", "3", "--pool.max-size", "2"], "max_size 2 is below min_size 3"),
        (["--pool.initial-size", "4"], "initial_size 4 is not from min_size 1 to max_size 1"),
        (["--pool.decode-cpus", "1.0"], "cpus_per_engine and decode_cpus are both 1.0"),
        (["--sampling.num-captions", "2"], "num_captions above 1 needs a temperature above 0"),
        (["--sampling.top-p", "0"], "top_p"),
        (["--sampling.top-p", "0.9"], "top_p without a use at temperature 0"),
        (["--sampling.top-p", "0.9", "--sampling.top-k", "5"], "top_p and top_k without a use at temperature 0"),
        (["--quality.min-similarity", "0.2"], "quality.min_similarity needs similarity"),
        (["--sampling.temprature", "1"], "temperature"),
        (["--side", "3"], "side"),
    ],
)
def test_a_config_that_cannot_be_is_refused_by_the_command_line(arguments, told):
    with pytest.raises(ConfigError) as refused:
        parse_config(CaptionJob, arguments)
    assert told in str(refused.value)


def test_the_program_ends_with_status_2_and_one_line_for_a_bad_config(tmp_path):
    done = run_program(["--output", str(tmp_path / "table"), "--pool.max-size", "0"])
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "pool.max_size" in line


@pytest.mark.ray
def test_the_program_ends_with_status_1_and_the_reason_as_its_last_line(shards, tmp_path):
    arguments = ["--shards", str(shards), "--model", str(tmp_path / "no-model"), "--output", str(tmp_path / "table")]
    done = run_program(arguments)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: no such model: got {tmp_path}/no-model, wanted a directory, a file or a hub id")
    assert "Traceback" not in done.stderr


def run_program(arguments: list[str]) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "jobs/caption.py"), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.slow
def test_a_storage_that_does_not_answer_is_told_without_its_secret(monkeypatch, shards, model):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # the port of nobody
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    message = refusal("s3://bucket/table", shards=shards, model=model)
    assert message.startswith("storage is not writable: got s3://bucket/table")
    assert SECRET not in message


def test_wrong_credentials_are_told_without_the_secret(monkeypatch, s3_server, shards, model):
    for name, value in (s3_server | {"AWS_SECRET_ACCESS_KEY": SECRET}).items():
        monkeypatch.setenv(name, value)
    ask_for_credentials(s3_server["AWS_ENDPOINT_URL"])
    message = refusal("s3://bucket/table", shards=shards, model=model)
    assert message.startswith("storage is not writable: got s3://bucket/table")
    assert "ACCESS_DENIED" in message
    assert SECRET not in message


def ask_for_credentials(endpoint: str) -> None:
    """From now on the S3 server lets in nobody whom it does not know, that is, nobody."""
    headers = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", data=b"0", method="POST", headers=headers)
    urllib.request.urlopen(request, timeout=30).close()


def test_credentials_inside_a_uri_are_refused_and_not_repeated(shards, model):
    message = refusal(f"s3://key:{SECRET}@bucket/table", shards=shards, model=model)
    assert message.startswith("credentials inside a URI") and SECRET not in message


@pytest.fixture(scope="module")
def other_shards(tmp_path_factory) -> Path:
    """Shards of videos that the generator did not make: their clips have no record of it."""
    folder = tmp_path_factory.mktemp("others") / "shards"
    write_shards(folder, lambda row, video: video, count=4)
    index = pq.read_table(folder / "index.parquet")
    nothing = pa.array([None] * len(index), pa.string())
    pq.write_table(index.set_column(index.schema.get_field_index("truth"), "truth", nothing), folder / "index.parquet")
    return folder


@pytest.mark.ray
@pytest.mark.parametrize("dry_run", [False, True])
def test_the_embedded_narrator_is_refused_on_videos_that_it_does_not_know(ray_cluster, other_shards, tmp_path, dry_run):
    with pytest.raises(UserError) as refused:
        caption(CaptionJob(shards=str(other_shards), output=str(tmp_path / "table"), dry_run=dry_run))
    message = str(refused.value)
    assert message.startswith("the embedded narrator knows the embedded corpus alone")
    assert f"{other_shards} with at least 4 clips of other videos" in message
    assert "--model llava-hf/llava-1.5-7b-hf" in message and "--model embedded" in message
    assert not any((tmp_path / "table").rglob("*"))


@pytest.mark.ray
@pytest.mark.vllm
@pytest.mark.slow
def test_the_embedded_narrator_captions_other_videos_where_it_is_named(ray_cluster, other_shards, tmp_path):
    (tmp_path / "embedded").mkdir()  # the name is no folder's
    job = CaptionJob(shards=str(other_shards), output=str(tmp_path / "table"), model="embedded")
    assert caption(job).startswith("captioned 4 clips")
    rows = pq.read_table(tmp_path / "table" / "captions-000000.parquet").to_pylist()
    assert {row["model"] for row in rows} == {"embedded narrator"}
    assert caption(job.model_copy(update={"model": None})).startswith("done already, 4 rows")
