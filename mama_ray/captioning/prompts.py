"""What a captioner is asked: a text for the model's own chat template, or the whole prompt as it stands."""

from typing import Any, Literal

from pydantic import Field

from mama_ray.config import Config
from mama_ray.errors import UserError


class PromptConfig(Config):
    """One prompt; the named ones are files in configs/prompt."""

    text: str = Field(min_length=1)
    """What is asked, e.g. `In a sentence, describe the process in the video.`"""

    form: Literal["chat", "raw"] = "chat"
    """chat: `text` goes into the chat template of the model's processor, after the picture; raw: `text` is the whole
    prompt, with the model's placeholder of the picture in it."""


def render_prompt(config: PromptConfig, processor: Any) -> str:
    """Return the prompt of one picture for a Hugging Face processor.

    Raises UserError for a raw prompt without exactly one placeholder, and for a model without a chat template.
    """
    if config.form == "raw":
        text = config.text
    elif getattr(processor, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": config.text}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    else:
        raise UserError(
            "the model has no chat template",
            remedy="give a prompt with form raw, such as USER: <image>\\n... ASSISTANT:",
        )
    token = image_token(processor)
    if text.count(token) != 1:
        raise UserError(
            "the prompt does not hold the picture", got=text, wanted=f"the image token {token} exactly once in it"
        )
    return text


def image_token(processor: Any) -> str:
    """Return the placeholder of a picture in the prompts of a processor's model."""
    token = getattr(processor, "image_token", None) or "<image>"
    return getattr(token, "content", token)
