"""The application: its routes, and what every request goes through."""

from collections.abc import Sequence
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from processor.api import (
    audit,
    docs,
    errors,
    events,
    filters,
    health,
    ingest,
    leads,
    merges,
    methods,
    openapi,
    preview,
    stream,
)
from processor.api.held import Held
from processor.api.measured import Measured
from processor.api.services import Services

ROUTERS: Sequence[APIRouter] = (
    events.router,
    ingest.router,
    stream.router,
    preview.router,
    filters.router,
    merges.router,
    leads.router,
    audit.router,
    health.router,
    docs.router,
)


class EmptyIsAbsent:
    """An empty query parameter is an absent one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Drops them before anybody looks."""
        if scope["type"] == "http" and scope["query_string"]:
            given = parse_qsl(scope["query_string"].decode("latin-1"), encoding="utf-8")
            scope = {**scope, "query_string": urlencode(given).encode()}
        await self._app(scope, receive, send)


def create(services: Services) -> FastAPI:
    """The application on connected services."""
    app = FastAPI(
        title="Organic",
        description="Engagement events with their verdicts, the filters that make them, and the leads they belong to.",
        version="1",
        redirect_slashes=False,
        openapi_url=None,  # `docs` serves it
    )
    app.state.services = services
    errors.install(app)
    app.add_middleware(Held)
    app.add_middleware(Measured)
    app.add_middleware(EmptyIsAbsent)
    methods.install(app, ROUTERS)
    openapi.install(app, ROUTERS)
    for router in ROUTERS:
        app.include_router(router)
    return app
