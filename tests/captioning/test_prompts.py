"""Prompts hold the picture exactly once, through a chat template or as they stand."""

from pathlib import Path

import pytest

from mama_ray.captioning.narrator.preset import CHAT_TEMPLATE, build_tiny_processor
from mama_ray.captioning.prompts import PromptConfig, medium_token, render_prompt
from mama_ray.config import ConfigError, load_config, parse_config
from mama_ray.errors import UserError
from tests.captioning.tiny_models import PROMPT, WORDS

NAMED = sorted((Path(__file__).resolve().parents[2] / "configs/prompt").glob("*.yaml"))


@pytest.fixture(scope="module")
def processor():
    return build_tiny_processor(WORDS, PROMPT.text, vocab_size=300)


@pytest.mark.parametrize("path", NAMED, ids=lambda path: path.stem)
def test_every_named_prompt_goes_into_the_words_of_llava(path, processor):
    config = load_config(PromptConfig, path)
    assert render_prompt(config, processor) == f"USER: <image>\n{config.text} ASSISTANT:"


def test_a_raw_prompt_stays_as_it_is(processor):
    text = "A chat.\nUSER: <image>\n{% raw %} ASSISTANT:"
    assert render_prompt(PromptConfig(text=text, form="raw"), processor) == text


@pytest.mark.parametrize("text", ["no picture", "<image><image>", "<video>", "< image >"])
def test_a_raw_prompt_holds_the_picture_once(text, processor):
    with pytest.raises(UserError, match=r"the prompt does not hold the picture: got .* <image> exactly once"):
        render_prompt(PromptConfig(text=text, form="raw"), processor)


def test_a_question_that_names_the_picture_itself_is_refused(processor):
    with pytest.raises(UserError, match="exactly once"):
        render_prompt(PromptConfig(text="what is in <image>?"), processor)


def test_a_template_that_shows_no_picture_is_refused():
    processor = build_tiny_processor(WORDS, PROMPT.text, vocab_size=300)
    processor.chat_template = CHAT_TEMPLATE.replace("<image>\n", "")
    with pytest.raises(UserError, match="exactly once"):
        render_prompt(PROMPT, processor)


def test_the_models_own_name_of_a_picture_counts():
    processor = build_tiny_processor(WORDS, PROMPT.text, vocab_size=300)
    processor.image_token = "<|image_pad|>"
    assert medium_token(processor, "image") == "<|image_pad|>"
    assert render_prompt(PromptConfig(text="<|image_pad|>Go.", form="raw"), processor)
    with pytest.raises(UserError, match="exactly once"):
        render_prompt(PromptConfig(text="<image>Go.", form="raw"), processor)


@pytest.mark.parametrize("words", [["--text", ""], ["--text", "a", "--form", "jinja"]])
def test_an_empty_prompt_or_an_unknown_form_is_no_config(words):
    with pytest.raises(ConfigError):
        parse_config(PromptConfig, words)
