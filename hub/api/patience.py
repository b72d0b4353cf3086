"""uvicorn's protocol with an end to its patience: the header lines of a request come in time and are not too long.

uvicorn itself waits for ever for whoever opens a connection and says nothing, or says half of it.
"""

from __future__ import annotations

from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LONGEST_HEAD = 64 * 1024  # bytes of a request's address and header lines
HEAD_SECONDS = 10.0  # from the connection, or the first byte, to the end of the header lines
_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Patient(HttpToolsProtocol):
    """One connection. How long a body may take is for those to say who read it."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.head: int | None = None  # bytes of a request whose header lines are coming in
        self.begun = False
        self.patience: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relieved()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.begun = False
        super().data_received(data)
        if self.head is not None:
            if self.transport.is_closing():
                return
            if not self.begun:  # else most of it may be of requests before
                self.head += len(data)
            if self.head > LONGEST_HEAD:
                self._refuse()
            elif self.patience is None:
                self._expect()
        elif not self.begun and self.patience is None and self._idle() and not self.transport.is_closing():
            self._expect()  # line ends, the rest of what was answered already: no request, and uvicorn's clock was stopped by it

    def on_message_begin(self) -> None:
        self.head, self.begun = 0, True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._headed()
        super().on_headers_complete()

    def _headed(self) -> None:
        """The header lines are all there."""
        self.head = None
        self._relieved()

    def _idle(self) -> bool:
        """Whether nothing that was asked waits for its answer."""
        return self.cycle is None or self.cycle.response_complete

    def _expect(self) -> None:
        """Header lines, within :data:`HEAD_SECONDS`: whoever opens connections and says nothing keeps none of them."""
        self.patience = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _relieved(self) -> None:
        if self.patience is not None:
            self.patience.cancel()
            self.patience = None

    def _refuse(self) -> None:
        self.transport.write(_TOO_LONG)
        self.transport.close()
