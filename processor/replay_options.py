"""What the command `replay` is asked."""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from processor.failures import StartRefused
from processor.io.clock import now_ms
from processor.pure import timestamps
from processor.setting_values import duration_ms
from processor.settings import Settings
from processor.terminal import in_place

if TYPE_CHECKING:
    from processor.replay import Replay

_WHEN = "An RFC 3339 time, or so long ago (2h)."


def replay(  # noqa: PLR0913 - each parameter is an option
    *,
    listed: Annotated[bool, typer.Option("--list", help="Show the letters, send none.")] = False,
    stage: Annotated[
        str | None, typer.Option(help="parse, validate, store, publish or merge.")
    ] = None,
    error: Annotated[str | None, typer.Option(help="A code such as missing_field.")] = None,
    org_unit: Annotated[str | None, typer.Option(help="As the payload names it.")] = None,
    topic: Annotated[str | None, typer.Option(help="Where the message was.")] = None,
    partition: Annotated[int | None, typer.Option(min=0)] = None,
    offset: Annotated[int | None, typer.Option(min=0)] = None,
    since: Annotated[str | None, typer.Option(help=f"{_WHEN} By the message's timestamp.")] = None,
    until: Annotated[str | None, typer.Option(help=f"{_WHEN} Before that.")] = None,
    most: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many letters.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask on a terminal.")] = False,
) -> None:
    """Send dead letters back to where they came from, each once; --list shows them.

    Options choose letters; without any, all that have not been replayed are meant.
    """
    from processor.pure.replay import Choice  # noqa: PLC0415  # only this command needs it
    from processor.replay import Asked, Replay  # noqa: PLC0415

    now = now_ms()
    begins, ends = _time("--since", since, now), _time("--until", until, now)
    choice = Choice(stage, error, topic, partition, offset, org_unit, begins, ends)
    settings, asked, looked = Settings.load(), Asked(choice, most), None
    if listed or (not yes and sys.stdin.isatty()):
        looking = Replay(settings, asked)
        looked = asyncio.run(looking.show(typer.echo if listed else _say_nothing))
        _sum_up(looking, "to replay")
        if listed or not looking.tally.taken or not typer.confirm("Replay them?"):
            return
    sending = Replay(settings, asked)
    try:
        asyncio.run(sending.send(in_place, looked))
    finally:
        _sum_up(sending, "replayed")


def _sum_up(replay: "Replay", done: str) -> None:
    tally = replay.tally
    in_place("")
    for line in tally.lines():
        typer.echo(line)
    typer.echo(f"{tally.taken.total()} letters {done}, {tally.left} not chosen")


def _say_nothing(_: str) -> None:
    return


def _time(option: str, text: str | None, now: int) -> int | None:
    if text is None:
        return None
    at = timestamps.from_text(text)
    if at is not None:
        return at
    try:
        return now - duration_ms(text)
    except ValueError as error:
        reason = f"{option} is {text!r}; allowed: an RFC 3339 time with an offset, or {error}"
        raise StartRefused(reason) from error
