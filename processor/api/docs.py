"""``/docs``: the API to read and try, from files of this installation alone; and ``/openapi.json``, what it says."""

from collections.abc import Mapping
from functools import lru_cache

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from swagger_ui_bundle import swagger_ui_path

from processor.api.answers import json
from processor.api.errors import Refused
from processor.api.openapi import for_viewer

router = APIRouter(include_in_schema=False)

_KINDS: Mapping[str, str] = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
# Addresses are relative: they hold behind a proxy that puts all of it below a path.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Organic API</title>
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<p>The viewer below rounds integers beyond 2<sup>53</sup> that it shows in an answer; the answer itself has all digits.</p>
<div id="ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  url: "docs/openapi.json",
  dom_id: "#ui",
  deepLinking: true,
  validatorUrl: null,
  displayRequestDuration: true,
});
"""
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # what the viewer draws has style attributes
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """OpenAPI 3.1 of everything but probes and this."""
    return json(request.app.openapi())


@router.get("/docs")
async def page() -> Response:
    """The page; it loads nothing from anywhere else."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})


@router.get("/docs/openapi.json")
async def viewed(request: Request) -> Response:
    """The same in OpenAPI 3.0, which is what the viewer knows."""
    return json(for_viewer(request.app.openapi()))


@router.get("/docs/start.js")
async def start() -> Response:
    """What the page does; in a file of its own, so that no inline script need be allowed."""
    return Response(_START, media_type="text/javascript")


@router.get("/docs/{name}")
async def file(name: str) -> Response:
    """One of the viewer's files."""
    if name not in _KINDS:
        raise Refused(404, "There is nothing at this address")
    cached = {"Cache-Control": "public, max-age=86400", "X-Content-Type-Options": "nosniff"}
    return Response(_content(name), media_type=_KINDS[name], headers=cached)


@lru_cache(len(_KINDS))
def _content(name: str) -> bytes:
    content: bytes = (swagger_ui_path / name).read_bytes()
    return content
