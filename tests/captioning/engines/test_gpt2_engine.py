"""The engine of the gated narrator: the protocol's promises, on frames, with the same texts in every company."""

import shutil
import threading
from concurrent.futures import wait

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.engines.gpt2_engine import Gpt2Engine, cache_bytes
from mama_ray.captioning.engines.protocol import (
    FRAMES,
    GRID,
    CaptionEngine,
    EngineDied,
    RequestRefused,
    Shown,
    caption_all,
)
from mama_ray.captioning.gpt2.scoring import token_logprobs
from mama_ray.captioning.pictures.grid import hash_pixels
from mama_ray.errors import UserError
from mama_ray.models.narrator.load import load_gated_narrator, load_narrator_tokenizer
from tests.captioning.gpt2.narrators import narrator_folder

TEN = SamplingConfig(num_captions=10, temperature=0.7, top_p=0.95, max_tokens=20)


def some_shown(num_clips: int, num_frames: int = 4) -> list[Shown]:
    rng = np.random.default_rng(4)
    clips = (rng.integers(0, 256, (num_frames, 48, 48, 3), np.uint8) // (1 + place % 5) for place in range(num_clips))
    return [Shown(FRAMES, clip, hash_pixels(clip)) for clip in clips]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return narrator_folder(tmp_path_factory.mktemp("narrator"))


def texts_of(folder, shown, *, sampling=TEN, seeds=None, **config):
    engine: CaptionEngine = Gpt2Engine(folder, "", sampling, EngineConfig(**config))
    answers = caption_all(engine, shown, seeds or range(0, 100 * len(shown), 100))
    engine.close()
    return answers


def test_ten_captions_of_each_clip_are_the_same_in_every_company(folder):
    shown = some_shown(8)
    together = texts_of(folder, shown)
    assert [len(texts) for texts in together] == [10] * 8
    assert len({text.text for texts in together for text in texts}) > 20
    alone = [texts_of(folder, [one], seeds=[100 * place], max_num_seqs=1)[0] for place, one in enumerate(shown[:3])]
    for ours, theirs in zip(alone, together, strict=False):
        assert [one.text for one in ours] == [one.text for one in theirs]
        assert [one.num_tokens for one in ours] == [one.num_tokens for one in theirs]
        assert [one.mean_logprob for one in ours] == pytest.approx([one.mean_logprob for one in theirs], abs=1e-4)
    # Sample k is drawn with seed + k.
    again = texts_of(folder, shown[:1], sampling=TEN.model_copy(update={"num_captions": 1}), seeds=[3])
    assert again[0][0].text == together[0][3].text


def test_a_text_is_that_of_its_tokens_with_their_log_probability(folder):
    shown = some_shown(6)
    answers = texts_of(folder, shown, sampling=SamplingConfig(max_tokens=20))
    model, tokenizer = load_gated_narrator(folder), load_narrator_tokenizer(folder)
    for one, (text,) in zip(shown, answers, strict=True):
        ids = tokenizer(text.text)["input_ids"]
        ends = [model.config.eos_id] if text.finish_reason == "stop" else []
        if len(ids) + len(ends) != text.num_tokens:
            continue  # the tokenizer cuts this text otherwise than it was written
        visual = model.encode_visual(torch.from_numpy(one.content)[None])
        scores = token_logprobs(model, visual, torch.tensor([[model.config.bos_id, *ids, *ends]]))
        assert text.mean_logprob == pytest.approx(scores.mean().item(), abs=1e-4)


def test_requests_of_several_threads_find_their_own_answers(folder):
    shown, futures = some_shown(12), {}
    engine = Gpt2Engine(folder, "", TEN, EngineConfig(max_num_seqs=8))
    threads = [
        threading.Thread(target=lambda part=part: futures.update({k: engine.submit(shown[k], 100 * k) for k in part}))
        for part in (range(0, 4), range(4, 8), range(8, 12))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait(list(futures.values()))
    engine.close()
    expected = texts_of(folder, shown)
    for place, texts in enumerate(expected):
        assert [one.text for one in futures[place].result()] == [one.text for one in texts]
    assert engine.num_tokens == sum(one.num_tokens for future in futures.values() for one in future.result())
    assert engine.busy_s > 0 and engine.idle_s >= 0


def test_what_is_no_frames_of_its_size_is_refused_and_others_go_on(folder):
    engine = Gpt2Engine(folder, "", SamplingConfig(max_tokens=4), EngineConfig())
    good, black = some_shown(1)[0], np.zeros((4, 32, 32, 3), np.uint8)
    grid = np.zeros((48, 48, 3), np.uint8)
    for shown, words in [
        (Shown(GRID, grid, hash_pixels(grid)), "shown frames, not a grid"),
        (Shown(FRAMES, black, hash_pixels(black)), "wanted uint8 .frames, 48"),
        (Shown(FRAMES, good.content[:0], ""), "wanted uint8"),
        (Shown(FRAMES, good.content.astype(np.float32), ""), "frames of float32"),
    ]:
        with pytest.raises(RequestRefused, match=words):
            engine.submit(shown, 0).result()
    assert len(engine.submit(good, 0).result()) == 1
    assert engine.submit(some_shown(1, num_frames=8)[0], 0).result()  # times are interpolated
    engine.close()
    with pytest.raises(EngineDied, match="closed"):
        engine.submit(good, 0).result()


def test_a_failure_is_told_to_all_who_wait(folder, monkeypatch):
    engine = Gpt2Engine(folder, "", TEN, EngineConfig(max_num_seqs=2))
    monkeypatch.setattr(engine._decoder, "_note", lambda *_: 1 / 0)
    futures = [engine.submit(one, 0) for one in some_shown(3)]
    for future in futures:
        with pytest.raises(EngineDied, match="ZeroDivisionError"):
            future.result(timeout=60)


def test_an_overflow_of_half_precision_ends_the_start_or_is_a_refusal(folder, tmp_path):
    good, engine = some_shown(1)[0], Gpt2Engine(folder, "", TEN, EngineConfig())
    with torch.no_grad():
        engine._model.img_queries.fill_(torch.inf)
    with pytest.raises(RequestRefused, match="the narrator computes no numbers"):
        engine.submit(good, 0).result(timeout=60)
    engine.close()
    state = load_file(folder / "model.safetensors")
    state["img_queries"].fill_(1e5)  # beyond the largest number of float16
    shutil.copytree(folder, tmp_path / "large")
    save_file(state, tmp_path / "large/model.safetensors", metadata={"format": "pt"})
    assert texts_of(tmp_path / "large", [good], dtype="bfloat16")
    with pytest.raises(UserError, match=r"no numbers: got torch.float16; take --engine.dtype bfloat16 or float32"):
        Gpt2Engine(tmp_path / "large", "", TEN, EngineConfig(dtype="float16"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_a_setting(folder, dtype):
    answers = texts_of(folder, some_shown(3), dtype=dtype)
    assert all(len(texts) == 10 for texts in answers)


@pytest.mark.parametrize(
    ("sampling", "config", "words"),
    [
        ({"max_tokens": 77}, {}, "sampling.max_tokens 77, wanted at most 76"),
        ({"max_tokens": 40}, {"max_model_len": 32}, "wanted at most 31"),
        ({}, {"options": {"quantization": "awq"}}, "engine.options are vLLM's"),
    ],
)
def test_settings_that_it_cannot_keep_are_refused(sampling, config, words, folder):
    with pytest.raises(UserError, match=words):
        Gpt2Engine(folder, "", SamplingConfig(**sampling), EngineConfig(**config))


def test_the_cache_may_be_bounded_and_changes_nothing(folder):
    config = load_gated_narrator(folder).config
    assert cache_bytes(config, 20, 4) == 2 * 3 * 96 * 20 * 4
    shown = some_shown(2)
    bounded = texts_of(folder, shown, kv_cache_mib=1)
    assert [[one.text for one in texts] for texts in bounded] == [
        [one.text for one in texts] for texts in texts_of(folder, shown)
    ]


def test_a_folder_of_another_kind_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(UserError):
        Gpt2Engine(tmp_path, "", SamplingConfig(), EngineConfig())
