"""The server's side of a connection: uvicorn's, with what a stream needs of it.

uvicorn lets an application end an answer only after everything it buffers is sent, which a client that reads nothing can put
off for ever.  Here an application may drop the connection.  And a client that is gone without a word is noticed within a minute
of the next thing that is sent to it, not after the quarter of an hour that Linux waits by itself.
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


class Connection(H11Protocol):
    """HTTP/1.1 of one client.

    One that reads no answer before it has sent its whole body gets its answer, where the body is not endless; what is no HTTP is
    answered like every other bad request.
    """

    _discarded = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Adds the way out to the state of every request."""
        super().connection_made(transport)
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

    def send_400_response(self, msg: str) -> None:
        """Says so where an answer can still begin, and ends the connection."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            head = h11.Response(status_code=400, headers=[*_HEADERS], reason=b"Bad Request")
            for event in (head, h11.Data(data=_BODY), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
