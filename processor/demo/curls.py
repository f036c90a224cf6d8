"""What somebody may ask the demo's API: its address, a token, and commands to paste."""

from collections.abc import Sequence
from pathlib import Path

from processor.io import tokens
from processor.io.postgres import Postgres
from processor.io.tokens import SCOPES, Wanted

ORG_UNIT = "acme"
READS = ("events:read", "filters:read", "audit:read")
_ASKED = ("/events?limit=3", "/suppression/summary?range=today", "/velocity-filters")


async def token(database: str, scopes: Sequence[str]) -> str:
    """A new one of the org unit whose traffic is played."""
    postgres = await Postgres.connect(database, size=1)
    try:
        return await tokens.create(postgres, Wanted(ORG_UNIT, "demo", scopes, None), "demo")
    finally:
        await postgres.close()


def scopes(*, checked: bool) -> Sequence[str]:
    """Of a run that is checked at its end nobody else may change anything."""
    return READS if checked else SCOPES


def whole(url: str, bearer: str) -> Sequence[str]:
    """Commands that need nothing else."""
    return [f'curl -s -H "Authorization: Bearer {bearer}" "{url}{path}"' for path in _ASKED]


def short(url: str, config: Path) -> Sequence[str]:
    """The same, short enough for a narrow screen; the token is in curl's `config`."""
    return [f'curl -sK {config} "{url}{path}"' for path in _ASKED]


def write_config(config: Path, bearer: str) -> None:
    """Makes the file of `short`, readable by its owner alone."""
    config.touch(mode=0o600)
    config.write_text(f'header = "Authorization: Bearer {bearer}"\n')
