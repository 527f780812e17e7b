"""The GPUs that an engine reserves are those that it uses, and engines that share one share its memory."""

import pytest

from mama_ray.captioning.engines.generation import EngineConfig
from mama_ray.captioning.engines.vllm_setup import engine_options
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.gpus import engine_on_gpus

TWO = {"tensor_parallel_size": 2}


@pytest.fixture(autouse=True)
def no_gpus(monkeypatch):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0})


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_engines_that_share_a_gpu_take_their_shares_of_its_memory(share):
    options = engine_options(engine_on_gpus("vllm", EngineConfig(), share), {}, on_cpu=False)
    assert options["gpu_memory_utilization"] == pytest.approx(0.9 * share)


@pytest.mark.parametrize(
    ("options", "num_gpus"), [({}, 0), ({}, 1), (TWO, 2), (TWO, 0), (TWO | {"pipeline_parallel_size": 2}, 4)]
)
def test_whole_gpus_leave_an_engine_as_it_is(options, num_gpus):
    engine = EngineConfig(options=options)
    assert engine_on_gpus("vllm", engine, num_gpus) == engine


@pytest.mark.parametrize(
    ("name", "options", "num_gpus"), [("vllm", {}, 2), ("vllm", TWO, 1), ("vllm", TWO, 0.5), ("gpt2", {}, 2)]
)
def test_gpus_that_an_engine_would_leave_idle_or_would_lack_are_refused(name, options, num_gpus):
    with pytest.raises(UserError, match=f"gpus_per_engine {num_gpus:g}, and {name} on {2 if options else 1}"):
        engine_on_gpus(name, EngineConfig(options=options), num_gpus)


def test_engines_that_reserve_no_gpu_where_there_are_some_are_warned_of(monkeypatch, caplog):
    engine_on_gpus("vllm", EngineConfig(), 0)
    assert not caplog.messages
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0, "GPU": 8.0})
    engine_on_gpus("t5", EngineConfig(), 0)
    engine_on_gpus("vllm", EngineConfig(), 1)
    assert not caplog.messages
    engine_on_gpus("vllm", EngineConfig(), 0)
    assert "engines reserve none of the 8 GPUs" in caplog.text
