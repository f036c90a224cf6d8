"""The command `processor`: reads settings, calls one part, prints what it answers.

Output goes to stdout, errors to stderr, one line each.  Exit codes: 0, 1 (a worker's defect, a
difference the demo found, a fault the doctor found), 2 (refused or failed, the line says why), 130 (Ctrl-C).  Parts are
imported by the command that needs them: `migrate` loads no Kafka.
"""

import asyncio
import getpass
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from processor.failures import Failure, StartRefused
from processor.replay_options import replay
from processor.settings import Settings
from processor.terminal import refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from processor.io.postgres import Postgres

app = typer.Typer(
    help="Tells organic events from machine traffic.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
topics = typer.Typer(help="Kafka topics.", no_args_is_help=True)
offsets = typer.Typer(help="Where the consumer group goes on.", no_args_is_help=True)
tokens = typer.Typer(help="Bearer tokens of the HTTP API.", no_args_is_help=True)
filters = typer.Typer(help="Velocity and metadata filters.", no_args_is_help=True)
app.add_typer(topics, name="topics")
app.add_typer(offsets, name="offsets")
app.add_typer(filters, name="filters")
app.add_typer(tokens, name="tokens")
app.command()(replay)


@app.command()
def worker() -> None:
    """Consume raw events and merges until SIGTERM."""
    from processor.worker import main as work

    work(Settings.load())


@app.command()
def api() -> None:
    """Serve the HTTP API until SIGTERM."""
    with extra("api"):
        from processor.api.server import main as serve

        serve(Settings.load())


@app.command()
def engagement() -> None:
    """Count scores, sessions and surges from the enriched topic until SIGTERM."""
    with extra("engagement"):
        from processor.engagement import main as count

        raise typer.Exit(count(Settings.load()))


@app.command()
def migrate() -> None:
    """Create or update the schema; repeated and concurrent calls are safe."""
    from processor.io import migrate as schema

    applied = asyncio.run(schema.migrate(Settings.load().database_url.get_secret_value()))
    for migration in applied:
        print(f"applied {migration.version:04d} {migration.name}")
    print(
        f"schema is at {schema.MIGRATIONS[-1].version:04d}" if applied else "schema is up to date"
    )


@app.command()
def doctor() -> None:
    """Look at Kafka, Redis, Postgres, topics and settings, and say what to do; exit code 1 for a fault."""
    from processor.doctor import main as look

    raise typer.Exit(look())


@app.command()
def demo(
    seconds: Annotated[float | None, typer.Option(min=1, help="End by itself.")] = None,
) -> None:
    """Start real servers and a worker, produce traffic, show it live and check the result."""
    with extra("embedded"):
        from processor.demo import main as show

        raise typer.Exit(show(seconds))


@app.command()
def bench(
    events: Annotated[int, typer.Option(min=10_000, help="Messages.")] = 300_000,
    rounds: Annotated[int, typer.Option(min=1, help="The table has their medians.")] = 3,
) -> None:
    """Measure a worker beside a floor on real servers of its own, and check every verdict."""
    with extra("embedded"):
        from processor.bench import main as measure

        raise typer.Exit(measure(events, rounds))


@app.command()
def purge(
    older_than: Annotated[str, typer.Option(help="A duration such as 180d.")],
) -> None:
    """Remove events that occurred and were received so long ago, in small steps; counts follow."""
    from processor import purge as old

    horizon_ms = old.horizon(older_than)

    async def purged() -> old.Purged:
        async with connected() as postgres:
            return await old.purge(Settings.load(), postgres, horizon_ms, f"cli {_user()}")

    print(asyncio.run(purged()))


@topics.command("create")
def topics_create(
    partitions: Annotated[int, typer.Option(min=1, max=10_000)] = 8,
    replication: Annotated[
        int | None,
        typer.Option(min=1, max=9, help="Default: 3 copies on 3 brokers or more, else 1."),
    ] = None,
) -> None:
    """Create the topics that are missing; leave the others as they are."""
    from processor.io.kafka_topics import create_topics

    for topic in asyncio.run(create_topics(Settings.load(), partitions, replication)):
        print(topic)


@offsets.command("reset")
def offsets_reset(
    topic: Annotated[str, typer.Option(help="That of raw events, or of merges.")],
    partition: Annotated[int, typer.Option(min=0)],
    to: Annotated[str, typer.Option(help="earliest, latest or an offset the topic holds.")],
) -> None:
    """Go on elsewhere in a partition, knowingly: a lane that stopped there takes up by itself.

    With at_least_once a lane that goes on would commit over it: the workers have to be stopped first.
    """
    from processor.io.kafka_offsets import reset_offset

    offset = asyncio.run(reset_offset(Settings.load(), topic, partition, to))
    print(f"{topic}/{partition}: the group goes on at {offset}")


@filters.command("apply")
def filters_apply(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML, as `filters export` prints.")],
) -> None:
    """Make the filters of each org unit in FILE exactly what it says, in one transaction."""
    from processor.io import filter_file
    from processor.io.filters import apply

    wanted = filter_file.read(file)

    async def applied() -> str:
        async with connected() as postgres:
            changes = await apply(postgres, wanted, f"cli {_user()}")
        return (
            f"{changes.added} added, {changes.changed} changed,"
            f" {changes.removed} removed, {changes.unchanged} unchanged"
        )

    print(asyncio.run(applied()))


@filters.command("export")
def filters_export(
    org_unit: Annotated[str | None, typer.Option(help="Only this one.")] = None,
) -> None:
    """Print the filters as `filters apply` reads them."""
    from processor.io import filter_file
    from processor.io.filters import export

    async def exported() -> str:
        async with connected() as postgres:
            return filter_file.write(await export(postgres, org_unit))

    print(asyncio.run(exported()), end="")


@tokens.command("create")
def tokens_create(
    org_unit: Annotated[str, typer.Option(help="The bearer sees this org unit alone.")],
    name: Annotated[str, typer.Option(help="Who it is for; the audit log names it.")],
    scopes: Annotated[str | None, typer.Option(help="Comma separated; default: all.")] = None,
    expires: Annotated[str | None, typer.Option(help="A duration such as 90d.")] = None,
) -> None:
    """Make a token; the last line of the output is the token, which is shown this once."""
    from processor.io import tokens as kept
    from processor.token_options import wanted

    asked = wanted(org_unit, name, scopes, expires)

    async def created() -> str:
        async with connected() as postgres:
            return await kept.create(postgres, asked, f"cli {_user()}")

    print(asyncio.run(created()))


@tokens.command("list")
def tokens_list(
    org_unit: Annotated[str | None, typer.Option(help="Only of this one.")] = None,
) -> None:
    """Print the tokens there are, a line each; the secrets are known to nobody."""
    from processor.io import tokens as kept
    from processor.token_options import line

    async def found() -> list[str]:
        async with connected() as postgres:
            return [line(row) for row in await kept.every(postgres, org_unit)]

    for text in asyncio.run(found()):
        print(text)


@tokens.command("revoke")
def tokens_revoke(
    token: Annotated[str, typer.Argument(metavar="TOKEN|PREFIX", help="As `tokens list` says.")],
) -> None:
    """Refuse a token from now on, within 5 seconds everywhere."""
    from processor.io import tokens as kept
    from processor.token_options import prefix_of

    prefix = prefix_of(token)

    async def revoked() -> bool:
        async with connected() as postgres:
            return await kept.revoke(postgres, prefix, f"cli {_user()}")

    if not asyncio.run(revoked()):
        raise StartRefused(f"there is no token {prefix}: see `processor tokens list`")
    print(f"{prefix}: revoked")


@asynccontextmanager
async def connected() -> "AsyncIterator[Postgres]":
    """Postgres with the schema this program knows; raises `StartRefused`."""
    from processor.io.migrate import check
    from processor.io.postgres import Postgres

    postgres = await Postgres.connect(Settings.load().database_url.get_secret_value(), size=1)
    try:
        await check(postgres)
        yield postgres
    finally:
        await postgres.close()


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Raises `StartRefused` where a package of the extra is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in ("processor", "schemas"):
            raise
        reason = f"{error.name} is not installed: in a checkout run pip install '.[{name}]'"
        raise StartRefused(reason) from error


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        return str(os.getuid())


def _end(number: int, _frame: object) -> None:
    """Until a command has a handler of its own."""
    sys.exit(128 + number)


def main() -> None:
    """The console script; ends the process."""
    # The first process of a container hears no signal that it has no handler for.
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, _end)
    try:
        app()
    except Failure as failure:
        sys.exit(refused(failure))


if __name__ == "__main__":
    main()
