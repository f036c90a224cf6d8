"""The README's guided life of an event does what it says: its commands are run, their outputs compared."""

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from processor.embedded import Stack

README = Path(__file__).parents[2] / "README.md"
MARK = "-- the next command"


def steps() -> Iterator[tuple[str, str]]:
    """(command, expected output) of every console block, in order; heredocs and continued lines belong to their command."""
    for block in re.findall(r"```console\n(.*?)```", README.read_text(), re.DOTALL):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = step.splitlines(keepends=True)
            size = command_lines(lines)
            yield "".join(lines[:size]), "".join(lines[size:])


def command_lines(lines: list[str]) -> int:
    """How many lines a command has."""
    heredoc = re.search(r"<<'(\w+)'", lines[0])
    if heredoc:
        return lines.index(heredoc[1] + "\n") + 1
    return next(n for n, line in enumerate(lines, 1) if not line.endswith("\\\n"))


def matches(expected: str, output: str) -> bool:
    """Whether they are the same, `…` standing for anything within a line."""
    pattern = ".*".join(re.escape(part) for part in expected.split("…"))
    return re.fullmatch(pattern, output) is not None


@pytest.mark.timeout(180)
async def test_the_life_of_an_event_is_as_the_readme_tells_it(
    stack: Stack, empty_database: str, redis_url: str, tmp_path: Path
) -> None:
    """One shell runs all commands in turn, as a reader would."""
    tour = list(steps())
    assert len(tour) > 10
    script = "".join(f"{command}echo '{MARK}'\n" for command, _ in tour)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {
        **os.environ,
        **stack.environment(),
        "DATABASE_URL": empty_database,
        "REDIS_URL": redis_url,
        "PATH": path,
    }
    shell = await asyncio.create_subprocess_exec(
        "bash", "-m", stdin=-1, stdout=-1, stderr=-1, cwd=tmp_path, env=environment
    )
    async with asyncio.timeout(150):
        out, err = await shell.communicate(script.encode())
    outputs = out.decode().split(f"{MARK}\n")
    for (command, expected), output in zip(tour, outputs, strict=False):
        assert matches(expected, output), (
            f"$ {command}said\n{output}\nnot\n{expected}\n{err.decode()[-3000:]}"
        )
    assert len(outputs) == len(tour) + 1
