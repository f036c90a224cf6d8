"""`processor doctor`: looks at everything a processor needs, all at once, and says what to do.

Whatever is away or wrong is a line; the others are looked at all the same.  It changes nothing.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from urllib.parse import urlsplit

from pydantic import SecretStr
from rich.console import Console
from rich.text import Text

from processor.failures import Failure, StartRefused
from processor.pure.findings import Finding, fault, healthy, length, ok, summary
from processor.settings import Settings

PATIENCE_S = 20.0
"""How long a dependency may take in all."""
_COLOURS = {"ok": "green", "warning": "yellow", "fault": "bold red"}


def main() -> int:
    """The exit code: 0, or 1 where there is a fault."""
    try:
        settings = Settings.load()
    except StartRefused as refused:
        findings: Sequence[Finding] = [fault("settings", *_split(refused))]
    else:
        findings = [ok("settings", told(settings)), *asyncio.run(look(settings))]
    show(findings)
    return 0 if healthy(findings) else 1


def show(findings: Iterable[Finding]) -> None:
    """A line for each, in colour on a terminal."""
    console, shown = Console(file=sys.stdout, soft_wrap=True, highlight=False), list(findings)
    for finding in shown:
        line = Text(str(finding))
        line.stylize(_COLOURS[finding.level], 0, len(finding.level))
        console.print(line)
    console.print(summary(shown))


async def look(settings: Settings) -> list[Finding]:
    """What there is to say of Kafka, Redis and Postgres; never raises for what they do."""
    from processor.io.checkup_kafka import kafka  # noqa: PLC0415  # a bad setting needs no driver
    from processor.io.checkup_postgres import postgres_server  # noqa: PLC0415
    from processor.io.checkup_redis import redis_server  # noqa: PLC0415

    parts = {"kafka": kafka, "redis": redis_server, "postgres": postgres_server}
    async with asyncio.TaskGroup() as scope:
        tasks = [scope.create_task(_of(part, ask, settings)) for part, ask in parts.items()]
    return [finding for task in tasks for finding in task.result()]


async def _of(
    part: str, ask: Callable[[Settings], Awaitable[Sequence[Finding]]], settings: Settings
) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await ask(settings)
    except Failure as failure:
        return [fault(part, *_split(failure))]
    except TimeoutError:
        said = f"no answer within {PATIENCE_S:g} s"
        return [fault(part, said, "look whether it is up and can be reached from here")]


def _split(failure: Failure) -> tuple[str, str]:
    """What is wrong, and what to do: our sentences have that after the last semicolon."""
    said, _, todo = str(failure).replace("\n", " ").rpartition("; ")
    return (said, todo) if said else (todo, "")


def told(settings: Settings) -> str:
    """What the environment sets, secrets left out."""
    fields = type(settings).model_fields
    given = sorted(settings.model_fields_set, key=list(fields).index)
    named = [f"{fields[name].validation_alias}={_value(settings, name)}" for name in given]
    return f"{', '.join(named) or 'none set'}; {len(fields) - len(given)} at their defaults"


def _value(settings: Settings, name: str) -> str:
    value = getattr(settings, name)
    if isinstance(value, SecretStr):
        return _address(value.get_secret_value()) if name.endswith("_url") else "***"
    return length(value) if name.endswith("_ms") else str(value)


def _address(secret: str) -> str:
    """What a URL leads to."""
    parts = urlsplit(secret)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{'***@' if '@' in parts.netloc else ''}{host}{parts.path}"
