"""What the commands of tokens are asked and what they print."""

from typing import Any

from processor.failures import StartRefused
from processor.io.tokens import SCOPES, Wanted
from processor.pure import timestamps
from processor.pure.shown import shown
from processor.setting_values import duration_ms

LONGEST_ORG_UNIT, LONGEST_NAME = 64, 128


def wanted(org_unit: str, name: str, scopes: str | None, expires: str | None) -> Wanted:
    """A token as its options describe it; raises `StartRefused`."""
    _named("--org-unit", org_unit, LONGEST_ORG_UNIT)
    _named("--name", name, LONGEST_NAME)
    chosen = SCOPES if scopes is None else tuple(scope.strip() for scope in scopes.split(","))
    for scope in chosen:
        if scope not in SCOPES:
            raise StartRefused(f"--scopes has {scope!r}; allowed: {', '.join(SCOPES)}")
    return Wanted(org_unit, name, chosen, _lasts_ms(expires))


def line(row: Any) -> str:
    """One token as `tokens list` prints it."""
    ends = "revoked" if row["revoked_at"] else f"expires {_time(row['expires_at'])}"
    return shown(
        f"{row['prefix']}  {row['org_unit']}  {row['name']}  {','.join(row['scopes'])}"
        f"  created {_time(row['created_at'])} by {row['created_by']}  {ends}"
        f"  last used {_time(row['used_at'])}"
    )


def prefix_of(token: str) -> str:
    """The public prefix of a token, or what already is one."""
    return token.split("_")[1] if token.startswith("ogt_") else token


def _time(milliseconds: int | None) -> str:
    return "never" if milliseconds is None else timestamps.to_text(milliseconds)


def _named(option: str, text: str, longest: int) -> None:
    if not 0 < len(text) <= longest or "\0" in text:
        raise StartRefused(f"{option} must have 1 to {longest} characters")


def _lasts_ms(expires: str | None) -> int | None:
    if expires is None:
        return None
    try:
        lasts = duration_ms(expires)
    except ValueError as error:
        raise StartRefused(f"--expires is {expires!r}; allowed: {error}") from error
    if not lasts:
        raise StartRefused("--expires must be longer than nothing")
    return lasts
