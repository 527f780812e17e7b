"""Connections that hold nobody's memory or file descriptors for long: uvicorn's own in pure Python, with a limit.

That one takes at most 64 KiB of headers, where its faster sibling takes any number. Neither minds how long they take:
a thousand clients that send a byte now and then would leave the app no file descriptor.
"""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class BoundedConnection(H11Protocol):
    """Closes a connection on which no whole head of a request has come in time, or of whose answer nothing is read.

    An answer may take as long as it does, and be read as slowly: it must go on.

    Attributes:
        patience_s: seconds from the first moment at which a request could have come.
        unread_s: seconds in which something of an answer that waits must be read.
    """

    patience_s = 30.0
    unread_s = 300.0  # at 80 kbit/s the system takes minutes for what it has taken in itself
    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

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
        self._end_look()

    def pause_writing(self) -> None:
        """Begin to look whether the client reads."""
        super().pause_writing()
        self._look_again()

    def resume_writing(self) -> None:
        """Look no more: it has read."""
        super().resume_writing()
        self._end_look()

    def _look_again(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(self.unread_s, self._look, waiting)

    def _look(self, waited: int) -> None:
        if self.transport.get_write_buffer_size() < waited:
            self._look_again()
        else:
            self.transport.abort()

    def _end_look(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._end_wait()
        elif self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.patience_s, self.transport.close)

    def _end_wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
