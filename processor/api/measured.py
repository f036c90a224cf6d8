"""HTTP in numbers: requests and the time to the head of their answer, by route, never by what fills its parameters."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from processor import telemetry

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Measured:
    """Passes every message on as it comes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts the request when it is over, its time when its answer begins."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        clock = asyncio.get_running_loop().time
        begun, status = clock(), "none"

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = f"{message['status'] // 100}xx"
                telemetry.HTTP_SECONDS.labels(route=_route(scope)).observe(clock() - begun)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            status = "5xx"
            raise
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            telemetry.HTTP_REQUESTS.labels(route=_route(scope), method=method, status=status).inc()


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", None) or "none"
