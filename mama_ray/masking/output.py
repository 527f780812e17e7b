"""Log records and text streams that pass the mask."""

import logging
from collections.abc import Iterable
from typing import Any, TextIO

from mama_ray.masking.text import mask_text


class MaskingFilter(logging.Filter):
    """Masks what a handler is about to write: the message and the traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the record; all are let through."""
        record.msg, record.args = mask_text(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = mask_text(record.exc_text)
        return True


class MaskedStream:
    """A text stream that masks what is written to it; in all else the stream it stands for."""

    def __init__(self, stream: TextIO) -> None:
        """Stand before `stream`."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, masked; returns its length as it was given."""
        self._stream.write(mask_text(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts, each masked."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
