"""Keeping secrets out of what is written: run directories are shared, and error messages end up in logs."""

import re
from collections.abc import Mapping
from typing import Any

_MASK = "***"
_SECRET_NAME = re.compile(r"(^|_)(key|token|secret|password|passwd|credentials?)$", re.IGNORECASE)
# user@ or user:password@; a secret may hold a slash, which a port number (host:8000/a@b) does not start with
_URI_USER = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)(?:[^/@:\s]+|[^/@:\s]*:(?!\d+/)[^@\s]*)@")
_URI_SECRET = re.compile(
    r"([?&][^=&\s]*(?:key|token|secret|password|signature|credential)[^=&\s]*=)[^&\s]+", re.IGNORECASE
)


def mask_secrets(value: Any, name: str = "") -> Any:
    """Replace text under names such as api_key or token, and credentials inside URIs, by asterisks."""
    if isinstance(value, Mapping):
        return {key: mask_secrets(member, str(key)) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask_secrets(member, name) for member in value]
    if not isinstance(value, str) or not value:
        return value
    if _SECRET_NAME.search(name):
        return _MASK
    return _URI_SECRET.sub(rf"\1{_MASK}", _URI_USER.sub(rf"\1{_MASK}@", value))
