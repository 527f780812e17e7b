"""What is wrong with a captioner's folder is told in one line that names it, before an engine is started."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoProcessor, BertConfig, CLIPConfig

from mama_ray.captioning.engines.captioner import ARCHITECTURES, Captioner, inspect_captioner
from mama_ray.captioning.engines.processor import picture_side, video_metadata
from mama_ray.captioning.narrator.preset import SIDE
from mama_ray.captioning.pictures.settings import FRAMES, GRID, VIDEO, ClipShowConfig
from mama_ray.captioning.prompts import PromptConfig
from mama_ray.errors import UserError
from mama_ray.models.weight_files import INDEX_NAME, hash_weights
from tests.captioning.tiny_gated import write_gated
from tests.captioning.tiny_models import PROMPT, write_llava, write_llava_next, write_llava_onevision
from tests.captioning.tiny_qwen import write_qwen2_5_vl, write_qwen2_vl, write_qwen3_vl

WEIGHTS, CONFIG, TOKENIZER, PROCESSOR = "model.safetensors", "config.json", "tokenizer.json", "processor_config.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(whole, tmp_path / "model")


def refusal(folder: Path, prompt: PromptConfig = PROMPT) -> str:
    with pytest.raises(UserError) as refused:
        inspect_captioner(folder, prompt)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_a_whole_folder_is_described_as_its_processor_sees_it(whole):
    found = inspect_captioner(whole, PROMPT)
    assert (found.architecture, found.side) == ("LlavaForConditionalGeneration", SIDE)
    assert found.prompt == "USER: <image>\ndescribe the video ASSISTANT:"
    processor = AutoProcessor.from_pretrained(whole)
    num_words = len(processor.tokenizer(found.prompt)["input_ids"]) - 1
    assert found.num_prompt_tokens == num_words + (SIDE // processor.patch_size) ** 2
    assert found.weights_sha256 == hash_weights(whole)


def test_the_side_is_the_users_where_one_is_given(tmp_path):
    folder = write_llava_next(tmp_path)
    natural, large = inspect_captioner(folder, PROMPT), inspect_captioner(folder, PROMPT, side=112)
    assert (natural.side, large.side) == (56, 112)
    assert large.num_prompt_tokens > natural.num_prompt_tokens + 16  # tiles


def test_a_processor_that_takes_any_size_gets_the_usual_one():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    images = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=14 * 14 * 4 * 1280)
    assert picture_side(SimpleNamespace(image_processor=images)) == 336


def test_other_weights_have_another_hash(whole, tmp_path):
    other = write_llava(tmp_path, seed=1)
    assert inspect_captioner(other, PROMPT).weights_sha256 != inspect_captioner(whole, PROMPT).weights_sha256


def test_a_folder_that_is_not_there_is_named(tmp_path):
    assert refusal(tmp_path / "nowhere") == (
        f"no such model folder: got {tmp_path / 'nowhere'}, wanted a folder in Hugging Face's layout"
    )


@pytest.mark.parametrize("config", [CLIPConfig(architectures=["CLIPModel"]), BertConfig(architectures=["BertModel"])])
def test_another_kind_of_model_is_told_with_the_kinds_that_are_served(folder, config):
    config.save_pretrained(folder)
    message = refusal(folder)
    assert f"unknown architecture of a captioner: got {config.architectures[0]}" in message
    assert "LlavaForConditionalGeneration" in message


@pytest.mark.parametrize(
    "content", [{}, {"architectures": None}, {"architectures": []}, {"architectures": "Llava"}, {"architectures": 3}]
)
def test_a_config_without_an_architecture_is_no_captioner(folder, content):
    (folder / CONFIG).write_text(json.dumps(content))
    assert "unknown architecture of a captioner" in refusal(folder)


def test_a_folder_without_a_config_is_no_model(folder):
    (folder / CONFIG).unlink()
    assert str(folder / CONFIG) in refusal(folder)


@pytest.mark.parametrize("content", [b"", b'{"architectures": ["Llava', b"[1]", b"\xff\xfe\x00", b"<!doctype html>"])
def test_a_damaged_config_is_named(folder, content):
    (folder / CONFIG).write_bytes(content)
    assert str(folder / CONFIG) in refusal(folder)


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_truncated_weights_are_named(folder, cut):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:cut])
    message = refusal(folder)
    assert "weights are damaged" in message and str(folder / WEIGHTS) in message


def test_weights_with_a_damaged_header_are_named(folder):
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[8:40] = b"\xff" * 32
    (folder / WEIGHTS).write_bytes(data)
    assert f"weights are damaged: got {folder / WEIGHTS}" in refusal(folder)


def test_missing_weights_are_named(folder):
    (folder / WEIGHTS).unlink()
    assert f"weights are missing: got {folder / WEIGHTS}" in refusal(folder)


def test_a_missing_shard_of_the_index_is_named(folder):
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / INDEX_NAME).write_text(json.dumps({"weight_map": names}))
    assert f"weights are missing: got {folder / names['b']}" in refusal(folder)


@pytest.mark.parametrize(
    "content", ["{}", '{"weight_map": {}}', '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}', "{"]
)
def test_an_index_that_names_no_weights_is_named(folder, content):
    (folder / WEIGHTS).unlink()
    (folder / INDEX_NAME).write_text(content)
    assert str(folder / INDEX_NAME) in refusal(folder)


def test_an_index_does_not_lead_out_of_the_folder(folder):
    (folder / WEIGHTS).rename(folder.parent / WEIGHTS)
    (folder / INDEX_NAME).write_text(json.dumps({"weight_map": {"a": f"../{WEIGHTS}"}}))
    assert str(folder / INDEX_NAME) in refusal(folder)


@pytest.mark.parametrize("name", [TOKENIZER, PROCESSOR])
def test_a_missing_or_damaged_processor_is_told_with_its_folder(folder, name):
    data = (folder / name).read_bytes()
    for content in (data[: len(data) // 2], b"", None):
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        message = refusal(folder)
        assert "processor" in message and str(folder) in message
        (folder / name).write_bytes(data)
    assert inspect_captioner(folder, PROMPT)


def test_a_model_without_a_chat_template_takes_raw_prompts_only(tmp_path):
    folder = write_llava(tmp_path, chat_template=False)
    assert "the model has no chat template; give a prompt with form raw" in refusal(folder)
    raw = PromptConfig(text="USER: <image>\nWhat? ASSISTANT:", form="raw")
    assert inspect_captioner(folder, raw).prompt == raw.text


@pytest.mark.parametrize("text", ["USER: What? ASSISTANT:", "<image> USER: <image> What?"])
def test_a_prompt_without_the_picture_or_with_two_is_refused(whole, text):
    message = refusal(whole, PromptConfig(text=text, form="raw"))
    assert f"got {text}, wanted the image token <image> exactly once" in message


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
@pytest.mark.parametrize("architecture", [name for name, known in ARCHITECTURES.items() if known.needs_torchvision])
def test_a_model_that_needs_torchvision_says_so_where_it_is_absent(tmp_path, architecture):
    (tmp_path / CONFIG).write_text(json.dumps({"architectures": [architecture]}))
    assert refusal(tmp_path) == (
        f"{architecture} needs torchvision: got no torchvision; pip install torchvision==0.28.0"
    )


@pytest.mark.parametrize(
    ("context_length", "max_model_len", "limit"), [(None, 100, 100), (100, None, 100), (100, 200, 100), (200, 100, 100)]
)
def test_a_caption_that_would_not_fit_is_refused_before_any_engine(context_length, max_model_len, limit):
    captioner = Captioner("LlavaForConditionalGeneration", 64, "p", 80, context_length, "w", "vllm")
    captioner.check_length(20, max_model_len)
    with pytest.raises(UserError, match=rf"got 80 \+ 21 tokens, wanted at most {limit}"):
        captioner.check_length(21, max_model_len)


def test_a_model_that_names_no_limit_takes_any_caption():
    Captioner("LlavaForConditionalGeneration", 64, "p", 80, None, "w", "vllm").check_length(10_000, None)


def test_a_video_that_would_not_fit_is_told_with_what_makes_it_smaller():
    captioner = Captioner("Qwen3VLForConditionalGeneration", 448, "p", 90, 100, "w", "vllm", VIDEO, 8)
    with pytest.raises(
        UserError, match=r"prompt, video and caption .* lower sampling.max_tokens, frames.num_frames or"
    ):
        captioner.check_length(11, None)


def test_a_gated_narrator_is_described_by_its_own_config_and_asked_nothing(tmp_path):
    folder = write_gated(tmp_path)
    found = inspect_captioner(folder, PROMPT)
    assert (found.engine, found.shows, found.architecture) == ("gpt2", FRAMES, "GatedNarrator")
    assert (found.side, found.num_frames, found.context_length) == (48, 4, 77)
    assert (found.prompt, found.num_prompt_tokens) == ("", 1)
    assert found.weights_sha256 == hash_weights(folder)
    assert inspect_captioner(folder, PROMPT, frames=ClipShowConfig(num_frames=2)).num_frames == 2
    with pytest.raises(UserError, match="another side than the model's: got side 64, wanted 48"):
        inspect_captioner(folder, PROMPT, side=64)
    (folder / TOKENIZER).unlink()
    assert "the narrator's tokenizer is missing" in refusal(folder)


def test_an_engine_that_does_not_run_the_model_is_one_clear_error(whole, tmp_path):
    gated = write_gated(tmp_path)
    assert inspect_captioner(whole, PROMPT, engine="vllm").engine == "vllm"
    assert inspect_captioner(gated, PROMPT, engine="gpt2").engine == "gpt2"
    with pytest.raises(UserError, match=r"not run this model: got --engine gpt2 and a Llava\w+, wanted --engine vllm"):
        inspect_captioner(whole, PROMPT, engine="gpt2")
    with pytest.raises(UserError, match=r"got --engine vllm and a GatedNarrator, wanted --engine gpt2"):
        inspect_captioner(gated, PROMPT, engine="vllm")


@pytest.mark.parametrize("kind", [FRAMES, VIDEO])
def test_a_model_that_cannot_be_shown_frames_or_videos_says_which_can(whole, kind):
    with pytest.raises(UserError) as refused:
        inspect_captioner(whole, PROMPT, frames=ClipShowConfig(show=kind))
    able = "GatedNarrator" if kind == FRAMES else "Qwen3VLForConditionalGeneration"
    assert f"cannot be shown a clip as {kind}: got frames.show {kind}, wanted grid, or for" in str(refused.value)
    assert able in str(refused.value) and "LlavaNext" not in str(refused.value)


@pytest.mark.parametrize("kind", [GRID, VIDEO])
def test_a_gated_narrator_is_shown_frames_alone(tmp_path, kind):
    with pytest.raises(UserError, match=f"a GatedNarrator cannot be shown a clip as {kind}"):
        inspect_captioner(write_gated(tmp_path), PROMPT, frames=ClipShowConfig(show=kind))


@pytest.mark.parametrize("write", [write_llava_onevision, write_qwen2_vl, write_qwen2_5_vl, write_qwen3_vl])
def test_videos_are_counted_as_the_processor_expands_them(write, tmp_path):
    pytest.importorskip("torchvision")
    folder = write(tmp_path)
    few, many = (
        inspect_captioner(folder, PROMPT, frames=ClipShowConfig(show=VIDEO, num_frames=count, long_side=56))
        for count in (2, 8)
    )
    assert (few.shows, few.num_frames, few.side) == (VIDEO, 2, 56)
    assert "video" in few.prompt.split("describe")[0] and "image" not in few.prompt
    assert many.num_prompt_tokens >= few.num_prompt_tokens + 6
    assert inspect_captioner(folder, PROMPT).shows == GRID
    with pytest.raises(UserError, match="set frames.long_side"):
        inspect_captioner(folder, PROMPT, side=64, frames=ClipShowConfig(show=VIDEO))
    raw = PromptConfig(text="What? <image>", form="raw")
    with pytest.raises(UserError, match="does not hold the video"):
        inspect_captioner(folder, raw, frames=ClipShowConfig(show=VIDEO))


@pytest.mark.parametrize(("times_s", "rate"), [([0.5, 1.5, 2.5, 3.5], 1.0), ([0.05, 0.15], 10.0), ([2.0], 0.25)])
def test_the_metadata_of_a_video_gives_back_times_and_rate(times_s, rate):
    from transformers.video_utils import VideoMetadata

    metadata = VideoMetadata(**video_metadata(times_s))
    assert metadata.timestamps == pytest.approx(times_s)
    assert metadata.sampled_fps == pytest.approx(rate, rel=1e-3)


def test_a_still_of_repeated_frames_has_metadata_too():
    assert video_metadata([0.0] * 8)["total_num_frames"] == 8
    assert video_metadata([0.0])["total_num_frames"] == 1


@pytest.mark.parametrize(
    ("frames", "told"),
    [
        ({"num_frames": 3}, "means nothing to a clip shown as grid: got frames.num_frames"),
        ({"long_side": 200}, "shown as grid: got frames.long_side"),
    ],
)
def test_settings_of_another_way_of_showing_are_refused(whole, tmp_path, frames, told):
    with pytest.raises(UserError, match=told):
        inspect_captioner(whole, PROMPT, frames=ClipShowConfig.model_validate(frames))
    with pytest.raises(UserError, match="shown as frames: got frames.num_candidates, frames.long_side"):
        inspect_captioner(write_gated(tmp_path), PROMPT, frames=ClipShowConfig(num_candidates=3, long_side=200))
