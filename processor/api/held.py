"""What all requests of a process hold together: bytes of their bodies, and of their answers.

Both have a limit, and of either an org unit has a share, so that none shuts the others out.  The first `LARGE` bytes of each body
and answer are everybody's.  A request that would go beyond is refused with a 503, as one is for which too much waits for Kafka;
those that are there go on.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from fastapi import Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from processor.api.errors import RETRY_AFTER_S, Refused, answer

MOST_BODIES = 64 << 20
"""Bytes of bodies, each from when it comes until its request is over."""
MOST_ANSWERS = 128 << 20
"""Bytes of answers, each until all but the last of it is on its way to its client.  One alone may be larger."""
SHARES = 4
"""An org unit may hold one of so many equal shares of either."""
LARGE = 64 << 10
"""Bytes of a body or an answer that do not count."""
PART = 1 << 20
"""Bytes of a large answer that the server has at once, and as many as a client is to read in its time (`connection.LEAST_READ`)."""
HOLD = "hold"
"""The name under which a request's state has what is told of every part of its body before it is kept; that raises `Refused`."""
ORG_UNIT = "org_unit"
"""The name under which it has the org unit of its token, once that is known."""
_AGAIN = {"Retry-After": RETRY_AFTER_S}


class Held:
    """Counts what requests hold, and refuses what is too much."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.bodies: Counter[str] = Counter()
        """Bytes by org unit."""
        self.answers: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What a request holds is let go when it is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif not await self._answered(scope, receive, send):
            await _too_many()(scope, receive, send)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Whether there was room for the answer: where there was none nothing is left of it, however slowly the client reads."""
        share = _Share(self, scope)
        try:
            await self._app(scope, receive, share.sending(send))
        except _NoRoomError:
            return False
        finally:
            share.let_go()
        return True


class _NoRoomError(Exception):
    """Ends the handling of a request whose answer is refused; no layer beneath knows it."""


class _Share:
    """Of one request."""

    def __init__(self, held: Held, scope: Scope) -> None:
        self._held = held
        self._scope = scope
        self._state = scope.setdefault("state", {})
        self._state[HOLD] = self.hold
        self._came = 0
        self._bodies: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()

    def hold(self, size: int) -> None:
        """Raises `Refused` where there is no room for so many bytes more."""
        self._came += size
        more = min(size, self._came - LARGE)
        if more > 0:
            if not self._fits(self._held.bodies, more, MOST_BODIES):
                raise Refused(503, "Too many bodies are being received; try again", _AGAIN)
            self._held.bodies[self._org_unit] += more
            self._bodies[self._org_unit] += more

    def sending(self, send: Send) -> Send:
        """Passes an answer on, a large one in parts; raises `_NoRoomError` where there is no room for it."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._begin(message)
            for part in _parts(message) if self._answers else (message,):
                await send(part)

        return sent

    def let_go(self) -> None:
        """The request is over."""
        self._held.bodies -= self._bodies
        self._held.answers -= self._answers

    def _begin(self, start: Message) -> None:
        """What tells of a change that was made is never refused."""
        more = int(Headers(raw=start["headers"]).get("content-length", 0)) - LARGE
        if more > 0:
            if _harmless(self._scope) and not self._fits(self._held.answers, more, MOST_ANSWERS):
                raise _NoRoomError
            self._held.answers[self._org_unit] += more
            self._answers[self._org_unit] += more

    def _fits(self, held: Counter[str], more: int, most: int) -> bool:
        there, own = held.total(), held[self._org_unit]
        return (not there or there + more <= most) and (not own or own + more <= most // SHARES)

    @property
    def _org_unit(self) -> str:
        found: str = self._state.get(ORG_UNIT, "")
        return found


def _harmless(scope: Mapping[str, object]) -> bool:
    """Whether the request changes nothing, and so may be made again."""
    preview = scope["method"] == "POST" and str(scope["path"]).endswith("/preview")
    return preview or scope["method"] in {"GET", "HEAD"}


def _parts(message: Message) -> Iterator[Message]:
    """Those of a body; the last, which the server still has when the request is over, is no larger than `LARGE`."""
    body = message.get("body", b"")
    last = max(len(body) - LARGE, 0)
    for begin in range(0, last, PART):
        yield {**message, "body": body[begin : min(begin + PART, last)], "more_body": True}
    yield {**message, "body": body[last:]} if last else message


def _too_many() -> Response:
    return answer(503, "Too many answers are not read yet; try again", _AGAIN)
