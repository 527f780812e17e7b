"""The engine against Hugging Face's own generate, whatever else is being captioned, and what its callers are told."""

import dataclasses
import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mama_ray.captioning.engines.build import build_engine
from mama_ray.captioning.engines.captioner import inspect_captioner
from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.engines.protocol import (
    GRID,
    CaptionEngine,
    EngineDied,
    GeneratedText,
    RequestRefused,
    Shown,
    caption_all,
)
from mama_ray.captioning.engines.vllm_engine import VllmEngine
from mama_ray.captioning.narrator.preset import SIDE
from mama_ray.captioning.pictures.grid import hash_pixels
from tests.captioning.tiny_models import PROMPT, write_llava, write_llava_next, write_llava_onevision
from tests.captioning.tiny_qwen import write_qwen2_5_vl

pytestmark = pytest.mark.vllm

NUM_TOKENS = 20
SMALL = EngineConfig(kv_cache_mib=16)
GREEDY = SamplingConfig(max_tokens=NUM_TOKENS)
SAMPLED = SamplingConfig(max_tokens=NUM_TOKENS, temperature=1.0)
SEVERAL = SamplingConfig(max_tokens=NUM_TOKENS, temperature=1.0, num_captions=3)
# Those of five pictures, far enough from each other for three captions each.
SEEDS = [1000 * number for number in range(1, 6)]


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> Path:
    return write_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def start():
    """Return a function that starts an engine; all are closed in the end."""
    engines = []

    def start_engine(folder: Path, sampling: SamplingConfig, config: EngineConfig = SMALL) -> VllmEngine:
        engines.append(VllmEngine(folder, inspect_captioner(folder, PROMPT).prompt, sampling, config))
        return engines[-1]

    yield start_engine
    for engine in engines:
        engine.close()


@pytest.fixture(scope="module")
def greedy(llava, start) -> VllmEngine:
    return start(llava, GREEDY)


@pytest.fixture(scope="module")
def several(llava, start) -> VllmEngine:
    return start(llava, SEVERAL, SMALL.model_copy(update={"options": {"disable_log_stats": False}}))


def pictures_of(*sides: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    coarse = [rng.integers(0, 256, (4, 4, 3), dtype=np.uint8) for _ in sides]
    return [np.asarray(Image.fromarray(cells).resize((side, side))) for side, cells in zip(sides, coarse, strict=True)]


PICTURES = pictures_of(*[SIDE] * 5)


def shown(pixels: np.ndarray) -> Shown:
    return Shown(GRID, pixels, hash_pixels(pixels))


def captions_of(engine: CaptionEngine, pictures: list[np.ndarray], seeds: list[int]) -> list[list[GeneratedText]]:
    return caption_all(engine, [shown(pixels) for pixels in pictures], seeds)


def tokens_of(engine: VllmEngine, pictures: list[np.ndarray]) -> list[list[int]]:
    """Caption pictures and return the tokens of each, as vLLM hands them out."""
    found, step = {}, engine._engine.step

    def listening_step() -> list:
        outputs = step()
        found.update({output.request_id: list(output.outputs[0].token_ids) for output in outputs if output.finished})
        return outputs

    engine._engine.step = listening_step
    captions_of(engine, pictures, [0] * len(pictures))
    engine._engine.step = step
    return [found[name] for name in sorted(found, key=int)]


def by_transformers(folder: Path, pictures: list[np.ndarray]) -> list[tuple[list[int], float]]:
    """Return the tokens that transformers writes greedily, and the mean of their log-probabilities."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    prompt, found = inspect_captioner(folder, PROMPT).prompt, []
    for pixels in pictures:
        inputs = processor(images=Image.fromarray(pixels), text=prompt, return_tensors="pt")
        written = model.generate(
            **inputs, do_sample=False, max_new_tokens=NUM_TOKENS, return_dict_in_generate=True, output_logits=True
        )
        tokens = written.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        steps = zip(tokens, written.logits, strict=True)
        found.append(
            (tokens, math.fsum(logits[0].log_softmax(-1)[token].item() for token, logits in steps) / len(tokens))
        )
    return found


def facts(captions: list[GeneratedText]) -> list[tuple]:
    """Return what must not depend on a batch: all but the last bits of the log-probability."""
    return [(caption.text, caption.num_tokens, caption.finish_reason) for caption in captions]


def test_greedy_captions_equal_those_of_transformers_token_for_token(llava, greedy):
    tokens, mean_logprobs = zip(*by_transformers(llava, PICTURES), strict=True)
    assert len({tuple(own) for own in tokens}) == len(PICTURES)
    assert tokens_of(greedy, PICTURES) == list(tokens)
    captions = [caption for (caption,) in captions_of(greedy, PICTURES, SEEDS)]
    assert [caption.mean_logprob for caption in captions] == pytest.approx(mean_logprobs, abs=1e-4)
    assert [caption.num_tokens for caption in captions] == [len(own) for own in tokens]


@pytest.mark.parametrize("name", ["greedy", "several"])
def test_a_caption_does_not_depend_on_its_batch_nor_on_who_submits_it(name, request):
    engine = request.getfixturevalue(name)
    alone = [captions_of(engine, [pixels], [seed])[0] for pixels, seed in zip(PICTURES, SEEDS, strict=True)]
    assert len({caption.text for captions in alone for caption in captions}) == len(PICTURES) * len(alone[0])
    others = pictures_of(*[SIDE] * 30, seed=1)
    order = [3, 0, 4, 1, 2]
    mixed = captions_of(engine, [*others, *(PICTURES[i] for i in order)], [*range(30), *(SEEDS[i] for i in order)])[30:]
    assert [facts(captions) for captions in mixed] == [facts(alone[i]) for i in order]

    def caption_again(number: int) -> list[list[GeneratedText]]:
        first = number % len(PICTURES)
        return captions_of(engine, [*PICTURES[first:], *PICTURES[:first]], [*SEEDS[first:], *SEEDS[:first]])

    with ThreadPoolExecutor(6) as callers:
        for number, found in enumerate(callers.map(caption_again, range(12))):
            first = number % len(PICTURES)
            assert [facts(captions) for captions in found] == [facts(own) for own in [*alone[first:], *alone[:first]]]


def test_captions_of_one_picture_differ_and_have_consecutive_seeds_even_where_memory_is_short(llava, several, start):
    together = captions_of(several, PICTURES, SEEDS)
    assert all(len({caption.text for caption in captions}) == 3 for captions in together)
    # A megabyte holds a few of these requests: the others wait, or are put off and begun again.
    single = start(llava, SAMPLED, EngineConfig(kv_cache_mib=1))
    singly = captions_of(
        single, [pixels for pixels in PICTURES for _ in range(3)], [seed + k for seed in SEEDS for k in range(3)]
    )
    assert [facts(captions) for captions in together] == [
        facts([caption for (caption,) in singly[start : start + 3]]) for start in range(0, 15, 3)
    ]


def test_captions_of_one_picture_come_from_one_look_and_share_the_read_prompt(llava, several):
    num_tokens = inspect_captioner(llava, PROMPT).num_prompt_tokens
    seen = []
    tower = several._engine.model_executor.driver_worker.model_runner.model.vision_tower
    hook = tower.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    before = metrics_of(several)
    captions_of(several, pictures_of(*[SIDE] * 4, seed=2), [1, 10, 20, 30])
    hook.remove()
    found = metrics_of(several) - before
    assert sum(seen) == 4
    num_shared = (num_tokens - 1) // 32 * 32  # whole blocks of the cache
    assert found.tolist() == [4 * 3 * num_tokens, 4 * 2 * num_shared]
    assert num_shared > num_tokens / 2


def metrics_of(engine: VllmEngine) -> np.ndarray:
    """Return vLLM's counts of the prompts' tokens, and of those that were found in the cache."""
    found = {metric.name: metric.value for metric in engine._engine.get_metrics() if hasattr(metric, "value")}
    return np.array([found["vllm:prefix_cache_queries"], found["vllm:prefix_cache_hits"]])


def test_llava_next_writes_what_transformers_writes_and_refuses_a_picture_of_too_many_tokens_alone(tmp_path, start):
    folder = write_llava_next(tmp_path)
    engine = start(folder, GREEDY, SMALL.model_copy(update={"max_model_len": 80}))
    small, large = pictures_of(56, 56), pictures_of(112)[0]  # 46 and 98 tokens
    futures = [engine.submit(shown(pixels), 0) for pixels in (small[0], large, small[1])]
    with pytest.raises(RequestRefused, match=r"98.*maximum model length of 80"):
        futures[1].result()
    assert [len(future.result()) for future in (futures[0], futures[2])] == [1, 1]
    assert tokens_of(engine, small) == [tokens for tokens, _ in by_transformers(folder, small)]


def test_memory_is_reserved_for_the_pictures_that_are_to_come_and_for_no_video(tmp_path):
    folder = write_llava_next(tmp_path)
    engine = build_engine(inspect_captioner(folder, PROMPT, 56), folder, GREEDY, SMALL)
    assert isinstance(engine, VllmEngine)
    try:
        limits = engine._engine.model_config.multimodal_config.limit_per_prompt
        assert (limits["image"].count, limits["image"].width, limits["image"].height) == (1, 56, 56)
        assert limits["video"].count == 0
        small = pictures_of(56)
        assert tokens_of(engine, small) == [tokens for tokens, _ in by_transformers(folder, small)]
    finally:
        engine.close()


@pytest.mark.parametrize("write", [write_llava_onevision, write_qwen2_5_vl])
def test_models_whose_processors_need_torchvision_write_what_transformers_writes(write, tmp_path, start):
    pytest.importorskip("torchvision")
    folder = write(tmp_path)
    pictures = pictures_of(56, 112, 112)
    assert tokens_of(start(folder, GREEDY), pictures) == [tokens for tokens, _ in by_transformers(folder, pictures)]


def test_an_engine_whose_step_fails_tells_those_who_wait_and_those_who_come(llava, start):
    engine = start(llava, GREEDY)

    def fail(*args, **kwargs):
        raise RuntimeError("the device fell off the bus")

    engine._engine.model_executor.driver_worker.model_runner.model.vision_tower.register_forward_pre_hook(fail)
    futures = [engine.submit(shown(pixels), 0) for pixels in PICTURES]
    for future in [*futures, engine.submit(shown(PICTURES[0]), 0)]:
        with pytest.raises(EngineDied, match="RuntimeError: the device fell off the bus"):
            future.result(timeout=60)
    with pytest.raises(EngineDied, match="fell off"):
        captions_of(engine, PICTURES[:1], [0])


def test_closing_answers_what_was_submitted_and_nothing_after_it(llava, greedy, start):
    engine = start(llava, GREEDY)
    futures = [engine.submit(shown(pixels), 0) for pixels in PICTURES]
    engine.close()
    assert all(future.done() for future in futures)
    assert [facts(future.result()) for future in futures] == [
        facts(own) for own in captions_of(greedy, PICTURES, SEEDS)
    ]
    with pytest.raises(EngineDied, match="closed"):
        engine.submit(shown(PICTURES[0]), 0).result(timeout=60)


def test_what_is_no_grid_is_refused_alone(greedy):
    grid = shown(PICTURES[0])
    futures = [greedy.submit(one, 0) for one in (dataclasses.replace(grid, kind="frames"), grid)]
    with pytest.raises(RequestRefused, match="shown a grid, not frames"):
        futures[0].result(timeout=60)
    assert facts(futures[1].result()) == facts(captions_of(greedy, PICTURES[:1], [0])[0])


def test_a_folder_that_cannot_be_loaded_is_told_by_the_constructor(llava, tmp_path, start):
    damaged = shutil.copytree(llava, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"")
    prompt = inspect_captioner(llava, PROMPT).prompt
    with pytest.raises(Exception, match="(?i)safetensors|header"):
        VllmEngine(damaged, prompt, GREEDY, SMALL)
