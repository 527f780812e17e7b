"""Every program in benchmarks/ runs, with its smallest sizes, and prints what it measured."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = sorted(path.name for path in (ROOT / "benchmarks").glob("*.py"))

# The smallest sizes of each program; {folder} is one of the test's own. A new program needs a line here.
SMALLEST = {
    "audit.py": "--storage {folder} --seeds 1 2 --num_train 160 --num_steps 4 --num_pretraining_steps 3",
    "captioning.py": "--num_clips 8 --max_tokens 4 --num_one_by_one 2 --corpus_clips 12 --storage {folder}",
    "captioning_memory.py": "--sizes 24",
    "checkpoint.py": "--preset tiny --rounds 1 --storage {folder}",
    "corpus.py": "--num-clips 8 --warm-up 8",
    "data_loading.py": "--corpus-clips 48 --steps 2 --warmup 1 --batch 4 --storage {folder}",
    "driver_memory.py": "--chunks 12 --per-pipeline 6",
    "first_person.py": "--storage {folder} --seeds 0 1 --arms human human+generated --num_train 48 --num_test 16 "
    "--num_steps 2 --batch 8",
    "hypergradient_value.py": "--storage {folder} --seeds 1 --num_train 96 --num_steps 4 --num_pretraining_steps 2 "
    "--options uniform",
    "index_scale.py": "--clips 20000 --folder {folder}/index",
    "long_video.py": "--minutes 1 --clips 2 --clip_s 1 --alone 1",
    "named_right.py": "--model embedded --num_clips 4 --seed 0",
    "narration.py": "--width 64 --layers 1 --vocabulary 600 --clips 2 --num_slow 1 --tokens 12 --corpus_clips 2",
    "question_learning.py": "--storage {folder} --seeds 0 1 --num_train 32 --num_meta 16 --num_val 16 --num_test 16 "
    "--num_steps 2 --batch 8 --swapped 0.5 --method_models --models clip_vip",
    "meta_step.py": "--preset tiny --batch 4 --rounds 1 --threads 1 --shares 0.25 --kinds forward_mode",
    "peer_captioning.py": "--rounds 1 --num-clips 40 --max-tokens 4",
    "peer_step.py": "--preset tiny --batch 4 2 --rounds 1",
    "recording.py": "--batch 8 --num_steps 4 --checkpoint_every 2",
    "scaling.py": "--num-clips 200000",
    "search.py": "--clips 2000 --dim 16 --queries 5 --clients 2",
    "search_replicas.py": "--clips 20000 --dim 16 --queries 5 --clients 2 --compared 2 --storage {folder}",
    "storage_requests.py": "--clips 64 --clip-bytes 200 --batch 16",
    "training_throughput.py": "--rounds 1 --short",
    "transcode.py": "--clips 1 --rounds 1 --frames 1",
    "transcode_recall.py": "--seeds 0 1 --num_train 16 --num_test 8 --num_steps 2 --batch 8",
}
# Those that start Ray take most of their time for that; those with a mark of slow more than half a minute.
MARKS = {
    "audit.py": [pytest.mark.slow],
    "captioning.py": [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow, pytest.mark.promise],
    "captioning_memory.py": [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow],
    "corpus.py": [pytest.mark.ray],
    "data_loading.py": [pytest.mark.ray, pytest.mark.slow],
    "driver_memory.py": [pytest.mark.ray],
    "hypergradient_value.py": [pytest.mark.slow],
    "index_scale.py": [pytest.mark.slow],
    "peer_captioning.py": [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow],
    "search_replicas.py": [pytest.mark.ray, pytest.mark.slow],
    "training_throughput.py": [pytest.mark.ray, pytest.mark.slow],
}


def test_every_program_has_its_smallest_sizes_here():
    assert sorted(SMALLEST) == PROGRAMS


@pytest.mark.parametrize("program", [pytest.param(name, marks=MARKS.get(name, [])) for name in PROGRAMS])
def test_a_program_runs_with_its_smallest_sizes(program, tmp_path):
    options = SMALLEST[program].format(folder=tmp_path).split()
    command = [sys.executable, str(ROOT / "benchmarks" / program), *options]
    # A program that a caller runs begins with what `make` sets and with nobody's Ray.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"PYTHONPATH": str(ROOT), "TMPDIR": "/tmp"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    if program == "training_throughput.py":
        assert "scaling efficiency" in done.stdout
        return
    found, _ = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{") :])
    numbers = [value for value in _leaves(found) if isinstance(value, int | float)]
    assert len(numbers) >= 3 and any(number > 0 for number in numbers if math.isfinite(number))


def _leaves(tree: object) -> list:
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in _leaves(value)]
    if isinstance(tree, list):
        return [leaf for value in tree for leaf in _leaves(value)]
    return [tree]
