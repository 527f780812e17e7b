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
    """chat: `text` goes into the chat template of the model's processor, after the picture or the video; raw: `text` is
    the whole prompt, with the model's placeholder of the picture or the video in it."""


def render_prompt(config: PromptConfig, processor: Any, medium: Literal["image", "video"] = "image") -> str:
    """Return the prompt of one picture, or of one video, for a Hugging Face processor.

    Raises UserError for a raw prompt without exactly one placeholder, and for a model without a chat template.
    """
    if config.form == "raw":
        text = config.text
    elif getattr(processor, "chat_template", None):
        content = [{"type": medium}, {"type": "text", "text": config.text}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    else:
        raise UserError(
            "the model has no chat template",
            remedy=f"give a prompt with form raw, such as USER: <{medium}>\\n... ASSISTANT:",
        )
    token = medium_token(processor, medium)
    if text.count(token) != 1:
        name = "picture" if medium == "image" else medium
        raise UserError(
            f"the prompt does not hold the {name}", got=text, wanted=f"the {medium} token {token} exactly once in it"
        )
    return text


def medium_token(processor: Any, medium: Literal["image", "video"]) -> str:
    """Return the placeholder of a picture or a video in the prompts of a processor's model."""
    token = getattr(processor, f"{medium}_token", None) or f"<{medium}>"
    return getattr(token, "content", token)
