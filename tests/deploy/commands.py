"""What a deployment says is tried on the program: its commands, and the settings it is given."""

from collections.abc import Mapping, Sequence

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from processor.__main__ import app
from processor.settings import Settings

SETTINGS = {str(field.validation_alias) for field in Settings.model_fields.values()}
"""Every variable that the program reads."""


def parsed(arguments: Sequence[str]) -> str:
    """The name of the command that ``processor ARGUMENTS`` runs; raises typer's usage errors."""
    command, rest, names = get_command(app), list(arguments), []
    while isinstance(command, TyperGroup):
        name, found, rest = command.resolve_command(typer.Context(command), rest)
        assert found
        command = found
        names.append(name or "")
    with command.make_context(names[-1], rest):
        return " ".join(names)


def loaded(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> Settings:
    """The settings of exactly this environment; raises `StartRefused`."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings.load()
