"""Log records and what a process prints pass the mask."""

import functools
import logging
import sys
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TextIO, TypeVar, cast

from mama_ray.masking.text import mask_text

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def mask_this_process() -> None:
    """Mask from now on what this process logs, in whichever handler, and what Python prints; again it changes nothing.

    Ray keeps what its workers print, and what Ray Train logs in them, as files that may be read by others.
    """
    make = logging.getLogRecordFactory()
    if not isinstance(make, _MaskedRecords):
        logging.setLogRecordFactory(_MaskedRecords(make))
    if not isinstance(sys.stdout, MaskedStream):
        sys.stdout = cast(TextIO, MaskedStream(sys.stdout))
    if not isinstance(sys.stderr, MaskedStream):
        sys.stderr = cast(TextIO, MaskedStream(sys.stderr))


def masked_errors(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Let no error out of a function whose text holds a secret.

    For the constructors of actors: Ray's compiled code writes the errors of these into its own logs, past the streams.
    """

    @functools.wraps(function)
    def masked(*arguments: Parameters.args, **more: Parameters.kwargs) -> Result:
        try:
            return function(*arguments, **more)
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            if mask_text(told) == told:
                raise
            raise RuntimeError(mask_text(told)) from None

    return masked


class _MaskedRecords:
    """Makes log records whose message and traceback are masked."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *arguments: Any, **more: Any) -> logging.LogRecord:
        record = self._make(*arguments, **more)
        try:
            text = record.getMessage()
        except Exception:  # arguments that do not fit are told by the handler, as ever
            return record
        masked = mask_text(text)
        if masked != text:  # else a formatter may want the arguments
            record.msg, record.args = masked, None
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = mask_text(logging.Formatter().formatException(record.exc_info))
        return record


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

    def __iter__(self) -> Any:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
