"""Connections that hold nobody's memory or file descriptors for long: uvicorn's own in pure Python, with a limit.

That one takes at most 64 KiB of headers, where its faster sibling takes any number. Neither minds how long they take:
a thousand clients that send a byte now and then would leave the app no file descriptor.
"""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class BoundedConnection(H11Protocol):
    """Closes a connection on which no whole head of a request has come in time; answers may take as long as they do.

    Attributes:
        patience_s: seconds from the first moment at which a request could have come.
    """

    patience_s = 30.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what came, which alone is no reason to wait longer."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._end_wait()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._end_wait()
        elif self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.patience_s, self.transport.close)

    def _end_wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
