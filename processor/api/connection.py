"""The server's side of a connection: uvicorn's, with what a stream needs of it.

uvicorn lets an application end an answer only after everything it buffers is sent, which a client that reads nothing can put
off for ever.  Here an application may drop the connection.  And a client that is gone without a word is noticed within a minute
of the next thing that is sent to it, not after the quarter of an hour that Linux waits by itself.

Nor does uvicorn mind how long a request takes to come, or how many come at once: here both are bounded, so that nobody can
hold all there is by saying nothing, or a byte now and then.
"""

import asyncio
import socket

import h11
import orjson
from uvicorn.protocols.http.h11_impl import H11Protocol

from processor.api.errors import CODES
from processor.api.stream_answer import CUT_OFF

SILENT_MS = 60_000
_BODY = orjson.dumps(
    {"error": {"code": CODES[400], "message": "The request is no HTTP, or its head is too long"}}
)
_HEADERS = (
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_BODY)).encode()),
    (b"connection", b"close"),
)


MOST_DISCARDED = 32 << 20
"""Bytes of a body that is still coming when its answer has been given; beyond these the connection is cut."""
MOST_CONNECTIONS = 4_000
"""Of a process, streams included; one more is cut at once."""
HEAD_WITHIN_S = 15.0
"""From the connection, or the last answer, to the end of a request's head."""
BODY_WITHIN_S = 60.0
"""From there to the end of its body."""


class Connection(H11Protocol):
    """HTTP/1.1 of one client.

    One that reads no answer before it has sent its whole body gets its answer, where the body is not endless; what is no HTTP is
    answered like every other bad request.  One that does not get on with its request is cut off.
    """

    _discarded = 0
    _coming: object = None
    """What of a request is awaited."""
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Adds the way out to the state of every request."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._await()
        self.app_state = {**self.app_state, CUT_OFF: transport.abort}
        taken = transport.get_extra_info("socket")
        if taken is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_MS)

    def data_received(self, data: bytes) -> None:
        """Passes it on, or passes over it."""
        if self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY:
            self._discarded += len(data)
            if self._discarded > MOST_DISCARDED:
                self.transport.abort()
                return
        else:
            self._discarded = 0
        super().data_received(data)
        self._await()

    def on_response_complete(self) -> None:
        """The next request may come."""
        super().on_response_complete()
        self._await()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Says so where an answer can still begin, and ends the connection."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            head = h11.Response(status_code=400, headers=[*_HEADERS], reason=b"Bad Request")
            for event in (head, h11.Data(data=_BODY), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await(self) -> None:
        """The next part of a request, for so long and no longer."""
        coming = self.conn.their_state
        if coming is self._coming:
            return
        self._coming = coming
        if self._late is not None:
            self._late.cancel()
        within = {h11.IDLE: HEAD_WITHIN_S, h11.SEND_BODY: BODY_WITHIN_S}.get(coming)
        if within is not None:
            self._late = self.loop.call_later(within, self.transport.abort)
