"""From what a model wrote to a caption: the order of MAMA's release (strip, sentence, image words, white space)."""

import re

from mama_ray.config import Config

_SENTENCE = re.compile(r"^.*?[.!?](?=\s|$)", re.DOTALL)
_IMAGE_WORDS = re.compile(r"\b(an?\s+)?(images?)\b", re.IGNORECASE)


class PostprocessConfig(Config):
    """How a model's words become a caption."""

    first_sentence: bool = False
    """Keep the first sentence alone; for prompts that ask for one."""

    replace_image_words: bool = True
    """Say video where the model, which sees a grid, says image or images."""


def postprocess(text: str, config: PostprocessConfig) -> str:
    """Return the caption in a model's words; it may be empty, which the quality gate then flags."""
    text = text.strip()
    if config.first_sentence and (found := _SENTENCE.match(text)):
        text = found.group()
    if config.replace_image_words:
        text = _IMAGE_WORDS.sub(_say_video, text)
    return " ".join(text.split())


def _say_video(match: re.Match) -> str:
    """Replace whole words only (imagery stays), keep a capital, and turn "an image" into "a video"."""
    article, word = match.groups()
    video = "Video" if word[0].isupper() else "video"
    if not article:
        return video
    return ("A " if article[0].isupper() else "a ") + video
