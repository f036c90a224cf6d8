"""What requests hold together: who is refused when it is too much, and what is let go when."""

import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request, Response
from starlette.types import ASGIApp

from processor.api import errors, held
from processor.api.held import Held
from processor.failures import Retryable
from processor.io import filters, postgres
from processor.io.producing import TooLargeError

MB = 1 << 20


class Page(Response):
    """An answer of so many bytes that nobody else keeps."""

    def __init__(self, size: int) -> None:
        super().__init__(bytes(range(256)) * (size // 256))


class World:
    """An application with large answers, all of whose requests have an org unit; what is sent waits as long as its `gate` says."""

    def __init__(self) -> None:
        self.app = FastAPI(openapi_url=None)
        errors.install(self.app)
        self.size = MB
        self.made: list[weakref.ref[Response]] = []
        self.app.add_api_route("/{any:path}", self._answer, methods=["GET", "HEAD", "POST", "PUT"])
        self.held: Held
        self.app.add_middleware(self._counted)

    def _counted(self, app: ASGIApp) -> ASGIApp:
        self.held = Held(app)
        return self.held

    async def _answer(self, request: Request) -> Response:
        request.scope["state"][held.HOLD](int(request.headers.get("body", "0")))
        page = Page(self.size)
        self.made.append(weakref.ref(page))
        return page

    async def ask(
        self,
        method: str = "GET",
        path: str = "/events",
        org_unit: str = "acme",
        body: int = 0,
        beside: Callable[[Any], Awaitable[None]] | None = None,
    ) -> list[Any]:
        """Every message of the answer; `beside` sees each before it is sent."""
        sent: list[Any] = []

        async def send(message: Any) -> None:
            if beside:
                await beside(message)
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"body", str(body).encode())],
            "state": {held.ORG_UNIT: org_unit},
        }
        await self.app(scope, receive, send)
        return sent


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """One whose requests hold 8 MB of either, those of an org unit 2 MB."""
    monkeypatch.setattr(held, "MOST_BODIES", 8 * MB)
    monkeypatch.setattr(held, "MOST_ANSWERS", 8 * MB)
    return World()


@contextmanager
def uncollected() -> Iterator[None]:
    """What is let go is let go at once, not when cycles are looked for."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def test_nothing_is_left_of_an_answer_that_is_refused(world: World) -> None:
    """Not while its client puts off reading the refusal either."""
    world.size = 2 * MB

    async def refused(message: Any) -> None:
        assert message.get("status", 503) == 503
        assert world.made[-1]() is None

    async def others(_: Any) -> None:
        if len(world.made) == 1:
            sent = await world.ask(beside=refused)
            assert sent[0]["status"] == 503
            assert dict(sent[0]["headers"])[b"retry-after"]

    with uncollected():
        assert (await world.ask(beside=others))[0]["status"] == 200
    assert len(world.made) == 2
    assert not world.held.answers


@pytest.mark.parametrize(
    "why",
    [
        errors.Refused(400, "no"),
        Retryable("postgres", "away"),
        TooLargeError(0, "events.raw", 1),
        filters.TooMuch("conditions"),
        postgres.TooMuch("bytes"),
        HTTPException(404),
    ],
)
async def test_nothing_is_left_of_a_request_that_is_refused(world: World, why: Exception) -> None:
    """While its client puts off reading why: frames of the refusal, and of what it came from, may hold a whole body."""
    made: list[weakref.ref[Page]] = []

    def refuse() -> None:
        page = Page(256)
        made.append(weakref.ref(page))
        try:
            _ = 1 // len(page.headers.get("x-missing", ""))
        except ZeroDivisionError as error:
            raise why from error

    async def none_left(_: Any) -> None:
        assert made[-1]() is None

    world.app.router.routes.clear()
    world.app.add_api_route("/refuse", refuse)
    with uncollected():
        assert (await world.ask(path="/refuse", beside=none_left))[0]["status"] >= 400
    assert len(made) == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/events", 503),
        ("HEAD", "/events", 503),
        ("POST", "/metadata-filters/preview", 503),
        ("POST", "/metadata-filters", 200),
        ("PUT", "/metadata-filters/preview", 200),
    ],
)
async def test_a_change_that_was_made_is_told(
    world: World, method: str, path: str, status: int
) -> None:
    """However large its answer, and whatever others do not read: to make it again would do harm.  Its answer counts."""
    world.size = 2 * MB
    asked: list[int] = []

    async def others(_: Any) -> None:
        if not asked:
            asked.append(0)
            asked[0] = (await world.ask(method, path, beside=count))[0]["status"]

    counted: list[int] = []

    async def count(_: Any) -> None:
        counted.append(world.held.answers.total())

    await world.ask(beside=others)
    assert asked == [status]
    assert (max(counted) > 2 * world.size - 3 * held.LARGE) == (status == 200)


@pytest.mark.parametrize("size", [held.LARGE, held.LARGE + 256, MB + held.LARGE, 3 * MB + 512])
async def test_an_answer_is_the_same_in_parts(world: World, size: int) -> None:
    """A small one has none.  Of a large one no part is larger than a client is to read in its time, and the last is small."""
    world.size = size
    start, *parts = await world.ask()
    assert int(dict(start["headers"])[b"content-length"]) == size
    assert b"".join(part["body"] for part in parts) == bytes(range(256)) * (size // 256)
    assert [part.get("more_body", False) for part in parts] == [True] * (len(parts) - 1) + [False]
    assert max(len(part["body"]) for part in parts) <= held.PART
    assert len(parts[-1]["body"]) <= held.LARGE
    assert (len(parts) == 1) == (size <= held.LARGE)


async def test_an_answer_counts_until_its_last_part_is_sent(world: World) -> None:
    """And what is small never does."""
    counted: list[int] = []

    async def count(_: Any) -> None:
        counted.append(world.held.answers.total())

    await world.ask(beside=count)
    assert counted == [MB - held.LARGE] * 3
    world.size = held.LARGE
    await world.ask(beside=count)
    assert counted[3:] == [0, 0]
    assert not world.held.answers


async def test_an_org_unit_has_a_quarter_of_what_answers_may_hold(world: World) -> None:
    """Another has its own, and one answer alone may be larger."""
    world.size = 3 * MB
    statuses: list[int] = []

    async def others(_: Any) -> None:
        if not statuses:
            statuses.append(0)
            statuses.append((await world.ask(org_unit="acme"))[0]["status"])
            statuses.append((await world.ask(org_unit="rival"))[0]["status"])

    assert (await world.ask(beside=others))[0]["status"] == 200
    assert statuses == [0, 503, 200]


async def test_an_org_unit_has_a_quarter_of_what_bodies_may_hold(world: World) -> None:
    """Another has its own; a small body is always taken, and all are let go with their request."""
    statuses: list[int] = []

    async def others(_: Any) -> None:
        if not statuses:
            statuses.append(200)
            for org_unit, body in (("acme", MB), ("acme", held.LARGE), ("rival", MB)):
                statuses.append((await world.ask(org_unit=org_unit, body=body))[0]["status"])

    world.size = 256
    await world.ask(body=2 * MB, beside=others)
    assert statuses == [200, 503, 200, 200]
    assert not world.held.bodies
