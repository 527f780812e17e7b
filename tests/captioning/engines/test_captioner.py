"""What is wrong with a captioner's folder is told in one line that names it, before an engine is started."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoProcessor, BertConfig, CLIPConfig

from mama_ray.captioning.engines.captioner import Captioner, inspect_captioner, picture_side
from mama_ray.captioning.narrator.preset import SIDE
from mama_ray.captioning.prompts import PromptConfig
from mama_ray.errors import UserError
from mama_ray.models.weight_files import INDEX_NAME, hash_weights
from tests.captioning.tiny_models import PROMPT, write_llava, write_llava_next

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
@pytest.mark.parametrize(
    "architecture", ["LlavaOnevisionForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"]
)
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
