"""Models that vLLM shows videos write what transformers writes of the same frames and times, one by one or together."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mama_ray.captioning.engines.build import build_engine
from mama_ray.captioning.engines.captioner import Captioner, inspect_captioner
from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.engines.processor import video_arguments
from mama_ray.captioning.engines.protocol import GRID, VIDEO, RequestRefused, Shown, caption_all
from mama_ray.captioning.engines.vllm_llava import register_llava
from mama_ray.captioning.engines.vllm_prompt import LargestVideo, vllm_prompt
from mama_ray.captioning.engines.vllm_qwen3 import accept_names_of_videos
from mama_ray.captioning.pictures.grid import hash_pixels
from mama_ray.captioning.pictures.settings import ClipShowConfig
from tests.captioning.tiny_models import PROMPT, write_llava_onevision
from tests.captioning.tiny_qwen import write_qwen2_5_vl, write_qwen2_vl, write_qwen3_vl

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

NUM_FRAMES, NUM_TOKENS = 6, 16
SHOWN_AS_VIDEO = ClipShowConfig(show=VIDEO, num_frames=NUM_FRAMES, long_side=112)
GREEDY = SamplingConfig(max_tokens=NUM_TOKENS)
SMALL = EngineConfig(kv_cache_mib=16)
FAMILIES = {
    "onevision": write_llava_onevision,
    "qwen2": write_qwen2_vl,
    "qwen2_5": write_qwen2_5_vl,
    "qwen3": write_qwen3_vl,
}


def videos() -> list[Shown]:
    """Two aspects, and one clip at two speeds."""
    rng = np.random.default_rng(0)
    found = []
    # At 0.375 s Qwen2.5-VL's frames reach no further in time than in space. Where they do, transformers 5.17 lets the
    # text begin before the video's last position; vLLM and the release begin after it.
    for height, width, spacing_s in ((84, 112, 0.25), (112, 56, 0.25), (84, 112, 0.375)):
        if spacing_s == 0.25:
            cells = rng.integers(0, 256, (NUM_FRAMES, height // 28, width // 28, 3), dtype=np.uint8)
        frames = found[0].content if spacing_s != 0.25 else np.kron(cells, np.ones((1, 28, 28, 1), np.uint8))
        times_s = tuple(spacing_s * (number + 0.5) for number in range(NUM_FRAMES))
        found.append(Shown(VIDEO, frames, hash_pixels(frames), times_s))
    return found


def whole_letters(text: str) -> str:
    """Return a text without the begin of a letter that was cut off at its end, which vLLM leaves out."""
    return text.rstrip("\ufffd")


def texts_by_transformers(folder: Path, captioner: Captioner, shown: list[Shown]) -> list[tuple[str, float, int]]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor, found = AutoProcessor.from_pretrained(folder), []
    for one in shown:
        times = video_arguments(list(one.times_s or ()))
        inputs = processor(text=captioner.prompt, videos=[one.content], return_tensors="pt", **times)
        assert inputs["input_ids"].shape[1] <= captioner.num_prompt_tokens
        written = model.generate(
            **inputs, do_sample=False, max_new_tokens=NUM_TOKENS, return_dict_in_generate=True, output_logits=True
        )
        tokens = written.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        steps = zip(tokens, written.logits, strict=True)
        logprob = math.fsum(logits[0].log_softmax(-1)[token].item() for token, logits in steps) / len(tokens)
        found.append(
            (whole_letters(processor.tokenizer.decode(tokens, skip_special_tokens=True)), logprob, len(tokens))
        )
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_video_is_captioned_as_by_transformers_and_nothing_else_is_taken(family, tmp_path):
    pytest.importorskip("torchvision")
    folder, shown = FAMILIES[family](tmp_path), videos()
    captioner = inspect_captioner(folder, PROMPT, frames=SHOWN_AS_VIDEO)
    wanted = texts_by_transformers(folder, captioner, shown)
    engine = build_engine(captioner, folder, GREEDY, SMALL)
    try:
        together = [answer[0] for answer in caption_all(engine, shown, [0] * len(shown))]
        alone = [engine.submit(one, 0).result()[0] for one in reversed(shown)][::-1]
        picture = np.zeros((112, 112, 3), np.uint8)
        with pytest.raises(RequestRefused, match="vLLM is shown a video, not grid"):
            engine.submit(Shown(GRID, picture, hash_pixels(picture)), 0).result()
        with pytest.raises(RequestRefused, match="a video of 6 frames came with the times of 0"):
            engine.submit(dataclasses.replace(shown[0], times_s=None), 0).result()
    finally:
        engine.close()
    for found in (together, alone):
        assert [whole_letters(one.text) for one in found] == [text for text, *_ in wanted]
        assert [one.num_tokens for one in found] == [num_tokens for *_, num_tokens in wanted]
        assert [one.mean_logprob for one in found] == pytest.approx([mean for _, mean, _ in wanted], abs=2e-3)
    texts = {text for text, *_ in wanted}
    # The same frames at another speed are another video to those that know of time.
    assert len(texts) == (3 if family in ("qwen2_5", "qwen3") else 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_vllm_makes_of_a_video_the_prompt_that_transformers_makes(family, tmp_path):
    """Without an engine: tokens, and where each frame is in time."""
    pytest.importorskip("torchvision")
    from transformers import AutoProcessor
    from vllm import ModelRegistry
    from vllm.config import ModelConfig
    from vllm.multimodal import MULTIMODAL_REGISTRY

    folder = FAMILIES[family](tmp_path)
    captioner = inspect_captioner(folder, PROMPT, frames=SHOWN_AS_VIDEO)
    register_llava(lambda: ModelRegistry)
    accept_names_of_videos(folder)
    limits = LargestVideo(NUM_FRAMES, 112).limits()
    config = ModelConfig(model=str(folder), dtype="float32", limit_mm_per_prompt=limits, mm_processor_cache_gb=0)
    ours, theirs = MULTIMODAL_REGISTRY.create_processor(config), AutoProcessor.from_pretrained(folder)
    for shown in videos():
        prompt = vllm_prompt(captioner.prompt, shown, config.hf_config.model_type)
        found = ours(
            theirs.tokenizer(prompt["prompt"])["input_ids"],
            mm_items=ours.info.parse_mm_data(prompt["multi_modal_data"]),
            hf_processor_mm_kwargs=prompt.get("mm_processor_kwargs", {}),
        )
        times = video_arguments(list(shown.times_s or ()))
        wanted = theirs(text=captioner.prompt, videos=[shown.content], return_tensors="pt", **times)
        assert list(found["prompt_token_ids"]) == wanted["input_ids"][0].tolist()
        (item,) = found["mm_kwargs"]["video"]
        if family == "qwen2_5":
            assert item["second_per_grid_ts"].data.item() == wanted["second_per_grid_ts"].item()
        if family == "qwen3":
            pairs = np.array(shown.times_s).reshape(-1, 2).mean(axis=1)
            assert item["timestamps"].data == pytest.approx(pairs.tolist())
