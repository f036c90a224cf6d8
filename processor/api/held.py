"""What all requests of a process hold together: bytes of their bodies, and of large answers that are not on their way yet.

Both have a limit.  A request that would go beyond is refused with a 503, as one is for which too much waits for Kafka; those that
are there go on.
"""

from collections.abc import Callable

from fastapi import Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from processor.api.errors import RETRY_AFTER_S, Refused, answer

MOST_BODIES = 64 << 20
"""Bytes of bodies, each from when it comes until its request is over."""
MOST_UNREAD = 128 << 20
"""Bytes of answers that clients have yet to read.  One alone may be larger."""
LARGE = 64 << 10
"""Bytes of an answer above which it may be refused: less is taken by the system at once, however slowly it is read."""
HOLD = "hold"
"""The name under which a request's state has what is told of every part of its body before it is kept; that raises `Refused`."""
UNREAD = "unread"
"""The name under which it has what tells how many bytes of answers the server buffers, for all clients."""
_AGAIN = {"Retry-After": RETRY_AFTER_S}


class Held:
    """Counts what requests hold, and refuses what is too much."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.bodies = 0
        self.answers = 0
        """Until the server has them; from then on it is asked."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What a request holds is let go when it is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        share = _Share(self, state.get(UNREAD, int))
        state[HOLD] = share.hold

        async def sending(message: Message) -> None:
            if share.refused:
                return
            if message["type"] == "http.response.start" and not share.answers(message):
                await _too_many()(scope, receive, send)
            else:
                await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            share.let_go()


class _Share:
    """Of one request."""

    def __init__(self, held: Held, unread: Callable[[], int]) -> None:
        self._held = held
        self._unread = unread
        self._body = 0
        self._answer = 0
        self.refused = False

    def hold(self, size: int) -> None:
        """Raises `Refused` where there is no room for so many bytes more."""
        if self._held.bodies + size > MOST_BODIES:
            raise Refused(503, "Too many bodies are being received; try again", _AGAIN)
        self._held.bodies += size
        self._body += size

    def answers(self, start: Message) -> bool:
        """Whether there is room for this answer."""
        size = int(Headers(raw=start["headers"]).get("content-length", 0))
        if size > LARGE:
            others = self._held.answers + self._unread()
            self.refused = others > 0 and others + size > MOST_UNREAD
        if not self.refused:
            self._held.answers += size
            self._answer = size
        return not self.refused

    def let_go(self) -> None:
        """The request is over."""
        self._held.bodies -= self._body
        self._held.answers -= self._answer


def _too_many() -> Response:
    return answer(503, "Too many answers are not read yet; try again", _AGAIN)
