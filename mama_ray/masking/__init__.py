"""Keeping secrets out of what leaves a process."""

from mama_ray.masking.output import MaskedStream, MaskingFilter
from mama_ray.masking.text import holds_credentials, mask_command, mask_secrets, mask_text

__all__ = ["MaskedStream", "MaskingFilter", "holds_credentials", "mask_command", "mask_secrets", "mask_text"]
