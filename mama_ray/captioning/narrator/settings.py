"""What a narrator is shown and asked, and what of it is trained; without torch, as a command line names it."""

from typing import Literal

from mama_ray.captioning.pictures.settings import ClipGridConfig
from mama_ray.captioning.prompts import PromptConfig
from mama_ray.config import Config

TrainedParts = Literal["all", "language_and_projector", "projector"]


class NarratorInput(Config):
    """What a narrator is shown of a clip, and asked."""

    prompt: PromptConfig = PromptConfig(text="describe the video")
    """The question; a narrator answers the one it was trained with."""

    grid: ClipGridConfig = ClipGridConfig()
    """The picture of a clip."""
