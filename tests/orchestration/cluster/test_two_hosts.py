"""Jobs on two hosts with a link between them: it carries training, it fails for a while, it fails for good."""

import sys
import time

import pytest

from mama_ray.data.synthetic.config import CorpusConfig
from tests.orchestration.captioning.captioning_runs import (
    ENGINE_TITLE,
    ROOT,
    parts_of,
    read_captions,
    write_caption_shards,
)
from tests.orchestration.cluster.two_hosts import TwoHosts, wait_for, why_not
from tests.orchestration.runs.training_runs import NUM_STEPS, checkpoint, outcome, training_command, write_shards

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_not()), reason=f"no hosts of its own: {why_not()}"),
]

ONE_WORKER = ['--resources={"train_slot": 1}']  # that each host holds
SPREAD = {"placement": {"worker_resources": {"train_slot": 1.0}}}
CUT_S = 20
# A host counts as lost after some 4 s without a word; as Ray has it, after a minute.
SOON_LOST = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


@pytest.mark.promise
def test_training_over_a_link_learns_the_same_when_it_fails_for_a_while(tmp_path, request):
    shards = write_shards(tmp_path / "shards")
    hosts = TwoHosts(num_cpus=[3, 3], options=ONE_WORKER)
    request.addfinalizer(hosts.stop)
    before = hosts.sent_bytes()
    for run in ("cut", "undisturbed"):
        log = tmp_path / f"{run}.log"
        process = hosts.start(training_command(tmp_path, shards, run, num_workers=2, **SPREAD), log)
        if run == "cut":
            wait_for(checkpoint(tmp_path, run, 4).is_dir, process)
            working = [sum("RayTrainWorker" in one for one in titles) for titles in hosts.titles()]
            hosts.cut_link()
            assert not checkpoint(tmp_path, run, NUM_STEPS).is_dir(), "it was cut too late to prove anything"
            time.sleep(CUT_S)
            assert not checkpoint(tmp_path, run, NUM_STEPS).is_dir(), "it needed no link"
            hosts.mend_link()
        assert process.wait(timeout=300) == 0, log.read_text()[-3000:]
    assert working == [1, 1]
    assert outcome(tmp_path, "cut") == outcome(tmp_path, "undisturbed")
    assert "Traceback" not in (tmp_path / "cut.log").read_text()
    weights = (checkpoint(tmp_path, "cut", 4) / "model.safetensors").stat().st_size
    sent = [now - then for now, then in zip(hosts.sent_bytes(), before, strict=True)]
    assert min(sent) > weights * NUM_STEPS, "gradients went another way"


def test_an_elastic_run_goes_on_with_one_worker_when_the_link_is_lost_for_good(tmp_path, request):
    shards = write_shards(tmp_path / "shards")
    hosts = TwoHosts(num_cpus=[3, 3], options=ONE_WORKER, environment=SOON_LOST)
    request.addfinalizer(hosts.stop)
    log = tmp_path / "lost.log"
    command = training_command(tmp_path, shards, "lost", num_workers={"min": 1, "max": 2}, **SPREAD)
    process = hosts.start(command, log)
    wait_for(checkpoint(tmp_path, "lost", 4).is_dir, process)
    working = [sum("RayTrainWorker" in one for one in titles) for titles in hosts.titles()]
    hosts.cut_link()
    assert not checkpoint(tmp_path, "lost", NUM_STEPS).is_dir(), "it was cut too late to prove anything"
    assert process.wait(timeout=400) == 0, log.read_text()[-3000:]
    assert working == [1, 1]
    learned = outcome(tmp_path, "lost")
    assert learned["state"] == {"step": NUM_STEPS, "samples_seen": NUM_STEPS * 16}
    assert [step for step, *_ in learned["losses"]] == list(range(1, NUM_STEPS + 1))


@pytest.mark.promise
@pytest.mark.vllm
def test_no_caption_is_lost_or_written_twice_when_the_link_to_an_engine_is_lost_for_good(tmp_path, request):
    """The host that is cut off lives on and reaches the storage: what it still does must not count."""
    corpus = CorpusConfig(num_train=600, num_meta=16, num_val=16, num_test=16)
    shards, output = write_caption_shards(tmp_path / "shards", corpus), tmp_path / "table"
    hosts = TwoHosts(num_cpus=[3, 2], options=['--resources={"caption_slot": 1}'], environment=SOON_LOST)
    request.addfinalizer(hosts.stop)
    command = [sys.executable, str(ROOT / "jobs/caption.py"), "--shards", str(shards), "--output", str(output)]
    command += ["--pool.initial_size", "2", "--pool.max_size", "2", "--pool.resources", "caption_slot", "1"]
    command += ["--engine.max_num_seqs", "1", "--sampling.min_tokens", "64"]
    log = tmp_path / "job.log"
    process = hosts.start(command, log)
    wait_for(lambda: len(parts_of(output)) >= 2 and is_captioning(hosts, 1), process)
    hosts.cut_link()
    committed = len(parts_of(output))
    assert committed < sum(corpus.num_clips.values()) / 64, "it was cut too late to prove anything"
    assert process.wait(timeout=400) == 0, log.read_text()[-3000:]
    rows = read_captions(output)
    assert len(rows) == len({row[:2] for row in rows}) == sum(corpus.num_clips.values())
    assert not any(error for *_, error in rows)


def is_captioning(hosts: TwoHosts, host: int) -> bool:
    return any(ENGINE_TITLE in one for one in hosts.titles()[host])
