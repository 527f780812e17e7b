"""From what a model wrote to a caption: the order of MAMA's release (strip, sentence, image words, white space)."""

import re

from mama_ray.config import Config

# A number at the begin is a list's, an abbreviation ends no sentence, and Chinese has no blank behind its full stop.
_SENTENCE = re.compile(
    r"^\s*(?:\(?\d{1,3}[.)]\s+)?.*?(?:(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bvs)(?<!\be\.g)(?<!\bi\.e)(?<!\b[A-Z])"
    r"[.!?]+[\"'\u201d\u2019)]?(?=\s|$)|[\u3002\uff01\uff1f]+[\u300d\u300f\u201d]?)",
    re.DOTALL,
)
_IMAGE = re.compile(r"(?:\b(an?|[\w-]+)(\s+))?\b(image)\b(?!\s+of\s+(?:Christ|God|Jesus))", re.IGNORECASE)
# One picture of several, or a thing of the video: there the word stays.
_OTHER_IMAGE = re.compile(
    r"(?:composite|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|\d+(?:st|nd|rd|th)|last"
    r"|final|next|other"
    r"|row|column|corner|previous|following|another|each|every|per|(?:\w+-)?(?:left|right|top|bottom|upper|lower|middle|cent(?:er|re)"
    r"|central)(?:-\w+)?"
    r"|x-?ray|mirror|mri|ultrasound|thermal|holographic|graven|projected|framed|printed|painted|self|brand|public"
    r"|body|spitting)",
    re.IGNORECASE,
)
# The plural means the video where it is what shows, or what things are seen in; counted or gathered images do not.
_IMAGES = re.compile(
    r"(?:(?<=^)|(?<=[.!?]\s))(?P<whole>(?:(?:the|these|those)\s+)?images)(?=\s+(?:of|show(?:s|ing)?|depict(?:s|ing)?"
    r"|captur(?:es?|ing)"
    r"|featur(?:es?|ing)|display(?:s|ing)?|present(?:s|ing)?|illustrat(?:es?|ing)|portray(?:s|ing)?)\b)"
    r"|\b(?P<inside>in\s+(?:the|these|those)\s+images)(?=\s*(?:[,.;!?]|$))",
    re.IGNORECASE,
)


class PostprocessConfig(Config):
    """How a model's words become a caption."""

    first_sentence: bool = False
    """Keep the first sentence alone; for prompts that ask for one."""

    replace_image_words: bool = True
    """Say video where the model, which sees a grid, says image and means the video. Words for one picture of several
    ("a grid of 12 images", "the first image") stay as they are: the quality gate flags them."""


def postprocess(text: str, config: PostprocessConfig) -> str:
    """Return the caption in a model's words; it may be empty, which the quality gate then flags."""
    text = text.strip()
    if config.first_sentence and (found := _SENTENCE.match(text)):
        text = found.group()
    if config.replace_image_words:
        text = _IMAGE.sub(_say_video, _IMAGES.sub(_say_videos, text))
    return " ".join(text.split())


def _say_video(match: re.Match) -> str:
    """Replace whole words only (imagery stays), keep a capital, and turn "an image" into "a video"."""
    before, blank, word = match.groups()
    if before and _OTHER_IMAGE.fullmatch(before):
        return match.group()
    video = "Video" if word[0].isupper() else "video"
    if before is None:
        return video
    if before.lower() in ("a", "an"):
        before = before[0]
    return f"{before}{blank}{video}"


def _say_videos(match: re.Match) -> str:
    text = match.group()
    return text[:-6] + ("Videos" if text[-6].isupper() else "videos")
