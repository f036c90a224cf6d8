"""Methods of addresses: what a 405 names, what OPTIONS tells, and HEAD as GET without its body."""

from collections.abc import Iterable

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from processor.api import errors

ENDLESS = "/stream"
"""An answer without an end has no length to tell: no HEAD."""


def install(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """Every address that is there knows all its methods."""
    routes = [route for router in routers for route in router.routes if isinstance(route, Route)]

    async def answer(request: Request, _: Exception) -> Response:
        allow = {"Allow": ", ".join(_methods(routes, request.scope["path"]))}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=allow)
        return errors.answer(405, "This address has no such method", allow)

    app.add_exception_handler(405, answer)
    app.add_middleware(HeadIsGet)


def _methods(routes: Iterable[Route], path: str) -> list[str]:
    found = {"OPTIONS"}
    for route in routes:
        if route.path_regex.match(path):
            found |= route.methods or set()
    if "GET" in found and path != ENDLESS:
        found.add("HEAD")
    return sorted(found)


class HeadIsGet:
    """The server sends no body in answer to HEAD, whatever the application gives it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application sees a GET."""
        if scope["type"] == "http" and scope["method"] == "HEAD" and scope["path"] != ENDLESS:
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)
