"""Keeping secrets out of what leaves a process."""

from mama_ray.masking.output import mask_this_process, masked_errors
from mama_ray.masking.text import (
    holds_credentials,
    mask_command,
    mask_secrets,
    mask_text,
    repeats_the_environment,
)

__all__ = [
    "holds_credentials",
    "mask_command",
    "mask_secrets",
    "mask_text",
    "mask_this_process",
    "masked_errors",
    "repeats_the_environment",
]
