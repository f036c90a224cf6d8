"""The server's side of a connection: uvicorn's, with what a stream needs of it.

uvicorn lets an application end an answer only after everything it buffers is sent, which a client that reads nothing can put
off for ever.  Here an application may drop the connection.  And a client that is gone without a word is noticed within a minute
of the next thing that is sent to it, not after the quarter of an hour that Linux waits by itself.

Nor does uvicorn mind how long a request takes to come or its answer to be read, or how many come at once: here all are bounded, so
that nobody can hold all there is by saying or reading nothing, or a byte now and then.
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
"""From the connection, or the end of the last answer, to the end of a request's head."""
BODY_WITHIN_S = 60.0
"""From there to the end of its body."""
READ_WITHIN_S = 60.0
"""`LEAST_READ` of an answer, or the rest of it.  Longer than a stream lets its client stall: that it ends itself, and says why."""
LEAST_READ = 1 << 20
"""Bytes."""
_UNSENT = 128 << 10
"""Bytes that the system takes beyond what is under way to the client: else it takes some MB, and how fast they are read is not seen."""
_OPTIONS = [
    (getattr(socket, name), value)
    for name, value in (("TCP_USER_TIMEOUT", SILENT_MS), ("TCP_NOTSENT_LOWAT", _UNSENT))
    if hasattr(socket, name)
]


class Connection(H11Protocol):
    """HTTP/1.1 of one client.

    One that reads no answer before it has sent its whole body gets its answer, where the body is not endless; what is no HTTP is
    answered like every other bad request.  One that does not get on with its request, or with its answer, is cut off.
    """

    _discarded = 0
    _coming: object = None
    """What of a request is awaited."""
    _late: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None
    """While some of an answer is not on its way."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Adds to the state of every request what it needs of the server."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._await()
        self.app_state = {**self.app_state, CUT_OFF: transport.abort}
        transport.set_write_buffer_limits(high=0)  # writing is paused while anything is unread
        taken = transport.get_extra_info("socket")
        for option, value in _OPTIONS if taken is not None else ():
            taken.setsockopt(socket.IPPROTO_TCP, option, value)

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

    def pause_writing(self) -> None:
        """The client has to read first, and to get on with it."""
        super().pause_writing()
        self._look(self.transport.get_write_buffer_size() + LEAST_READ)

    def resume_writing(self) -> None:
        """Everything is on its way; from now on the next request is awaited."""
        super().resume_writing()
        if self._reading is not None:
            self._reading.cancel()
        if self._coming is h11.IDLE:
            self._coming = None
            self._await()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        super().connection_lost(exc)
        for timer in (self._late, self._reading):
            if timer is not None:
                timer.cancel()

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
        if coming is h11.IDLE:
            self._late = self.loop.call_later(HEAD_WITHIN_S, self._no_head)
        elif coming is h11.SEND_BODY:
            self._late = self.loop.call_later(BODY_WITHIN_S, self.transport.abort)

    def _no_head(self) -> None:
        """Who reads an answer may be still for as long as that takes."""
        if not self.flow.write_paused:
            self.transport.abort()

    def _look(self, unread: int) -> None:
        """Whether enough was read since so much was `unread`."""
        left = self.transport.get_write_buffer_size()
        if left > unread - LEAST_READ:
            self.transport.abort()
        else:
            self._reading = self.loop.call_later(READ_WITHIN_S, self._look, left)
