"""The lookup's way from the socket and back: what uvicorn does for any request is more than what a lookup needs.

uvicorn's protocol makes a scope, a task, a cycle of messages and two writes of each request; that takes longer than the
decision. Here a ``POST /v1/lookups`` that came whole and alone goes straight to :class:`hub.api.hot.Hot`, and its answer out
in one write. Whatever else comes, or is not in order, takes uvicorn's way unchanged: other addresses, a body in
pieces, requests sent before the last was answered, connections that are to be closed.
"""

from __future__ import annotations

from typing import Any

from hub.api.hot import ADDRESS, LONGEST, Hot
from hub.api.patience import Patient
from hub.api.rates import TRIED

_URL = ADDRESS.encode()
LATER = 64 * 1024  # bytes of what is sent ahead that are kept until the answer is out


class Wire(Patient):
    """One connection. At most one lookup is under way on it; what comes meanwhile waits in ``later``."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        application: Any = self.app
        while not hasattr(application, "state") and hasattr(application, "app"):  # uvicorn may have wrapped it
            application = application.app
        self.hot: Hot = application.state.hot
        self.access_log = self.access_log and self.config.access_log  # others may have changed the logger since
        self.body: list[bytes] | None = None  # of a lookup that is coming in
        self.whole = False
        self.under_way = False
        self.closing = False
        self.later = bytearray()

    def data_received(self, data: bytes) -> None:
        if self.under_way:
            self.later += data
            if len(self.later) > LATER:
                self.flow.pause_reading()
            return
        super().data_received(data)
        if self.body is None:
            return
        lanes = self.hot.lanes.get(self.loop) if self.whole and self.hot.on else None
        if lanes is None:
            self._ordinary()
            return
        self.under_way = self.hot.take(lanes, dict(self.headers), b"".join(self.body), self._answered)
        if not self.under_way:
            self._ordinary()
        self.body = None

    def on_message_begin(self) -> None:
        if self.body is not None:  # another request in the same packet
            self._ordinary()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._headed()
        if (
            self.url == _URL
            and (self.cycle is None or self.cycle.response_complete)
            and not self.expect_100_continue
            and not self.access_log
            and self.limit_concurrency is None
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
        ):
            self.body, self.whole = [], False
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.body is None:
            super().on_body(body)
            return
        self.body.append(body)
        if sum(map(len, self.body)) > LONGEST:
            self._ordinary()

    def on_message_complete(self) -> None:
        if self.body is None:
            super().on_message_complete()
        else:
            self.whole = True

    def _idle(self) -> bool:
        return self.body is None and not self.under_way and super()._idle()

    def _ordinary(self) -> None:
        """Let uvicorn have the request, as far as it has come."""
        parts, self.body = self.body or [], None
        super().on_headers_complete()
        for part in parts:
            super().on_body(part)
        if self.whole:
            super().on_message_complete()

    def _answered(self, lines: bytes | None, body: bytes, counted: bool) -> None:
        """The answer of the lookup under way: header lines and body. None and the body of the question: it was not answered
        here, and is not tried here again on the ordinary way, nor ``counted`` again."""
        self.under_way = False
        if self.transport.is_closing():  # whoever asked has gone
            return
        if lines is None:
            self.scope[TRIED] = counted  # type: ignore[literal-required]
            self.body = [body]
            self._ordinary()
            self._go_on()
            return
        common = b"".join([b"%b: %b\r\n" % line for line in self.server_state.default_headers])
        self.transport.write(b"HTTP/1.1 200 OK\r\n%b%b\r\n%b" % (common, lines, body))
        self.server_state.total_requests += 1
        if self.closing:
            self.transport.close()
            return
        if self.later:
            self._go_on()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _go_on(self) -> None:
        """Read what came meanwhile."""
        if self.later:
            data, self.later = bytes(self.later), bytearray()
            self.flow.resume_reading()
            self.data_received(data)

    def shutdown(self) -> None:
        """The server stops: an answer under way is still given."""
        if self.under_way:
            self.closing = True
        else:
            super().shutdown()
