"""`processor api`: the application on uvicorn, until SIGTERM; requests in flight finish, streams are told to end."""

import asyncio
import contextlib
import itertools
import resource
import socket
from types import FrameType
from typing import NoReturn

import structlog
import uvicorn

from processor import telemetry
from processor.api.app import create
from processor.api.connection import Connection
from processor.api.services import Services, connected
from processor.failures import Retryable, StartRefused
from processor.io import idempotency
from processor.io.ending import then_exit
from processor.settings import Settings

log = structlog.get_logger(__name__)

END_WITHIN_S = 20
LONGEST_HEAD = 32 << 10
"""Bytes of a request's line and headers."""
HOUSEKEEPING_S = 5.0
FORGETTING_TURNS = 120
"""Of housekeeping: some ten minutes."""
OPEN_FILES = 8_192


def main(settings: Settings) -> NoReturn:
    """Ends the process; raises `StartRefused`."""
    telemetry.configure_logging(settings.log_format)
    _allow_connections()
    asyncio.run(then_exit(serve(settings)))


def _allow_connections() -> None:
    """A thousand streams are more open files than many systems allow by themselves."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Server(uvicorn.Server):
    """Tells streams to end as soon as the process is asked to."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A second signal ends it without waiting.  Uvicorn's own would raise the signal again in the end."""
        self._services.stopping.set()
        self.force_exit = self.should_exit
        self.should_exit = True


async def serve(settings: Settings) -> int:
    """Until a signal; raises `StartRefused`."""
    with contextlib.closing(_listener(settings.api_host, settings.api_port)) as listener:
        async with connected(settings) as services:
            server = _Server(configured(services), services)
            housekeeping = asyncio.create_task(_housekeeping(services))
            log.info("api_listens", host=settings.api_host, port=settings.api_port)
            try:
                await server.serve(sockets=[listener])
            finally:
                housekeeping.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await housekeeping
    log.info("api_ended")
    return 0


def configured(services: Services, host: str = "127.0.0.1", port: int = 0) -> uvicorn.Config:
    """How uvicorn serves the application; host and port are those of a test, which brings no socket."""
    return uvicorn.Config(
        create(services),
        host=host,
        port=port,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=END_WITHIN_S,
        h11_max_incomplete_event_size=LONGEST_HEAD,
    )


def _listener(host: str, port: int) -> socket.socket:
    """The port, had before anything is connected: who asks meanwhile waits."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with contextlib.ExitStack() as unless_had:
            listener = unless_had.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()  # two that only bind do not notice each other
            unless_had.pop_all()
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartRefused(
            f"cannot listen on API_HOST {host}, API_PORT {port}: {reason}"
        ) from error
    return listener


async def _housekeeping(services: Services) -> None:
    """What may wait a little: the last use of tokens, and forgetting the keys of yesterday."""
    for turn in itertools.count():
        with contextlib.suppress(Retryable):
            await services.tokens.note_use()
        if turn % FORGETTING_TURNS == 0:
            with contextlib.suppress(Retryable):
                await idempotency.forget(services.postgres)
        await asyncio.sleep(HOUSEKEEPING_S)
