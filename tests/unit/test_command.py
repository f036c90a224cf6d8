"""The command line: one line for whatever goes wrong, and no part loaded that is not needed."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from processor import __main__ as command
from processor.failures import StartRefused


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of ``processor ARGUMENTS``."""
    monkeypatch.setattr(sys, "argv", ["processor", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    code = ended.value.code
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize(
    ("variable", "value", "arguments"),
    [
        ("ALLOWED_LATENESS", "1", ("migrate",)),
        ("DATABASE_URL", "postgresql://127.0.0.1:1/nowhere", ("migrate",)),
        ("DATABASE_URL", "postgresql://127.0.0.1:1/nowhere", ("filters", "export")),
        ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1", ("topics", "create")),
        ("FILTER_ORDER", "x", ("worker",)),
    ],
)
def test_a_refusal_is_one_line_on_stderr(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    arguments: tuple[str, ...],
) -> None:
    """It names the variable, and the exit code is 2."""
    monkeypatch.setenv(variable, value)
    assert run(monkeypatch, *arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("processor: ")
    assert variable in line


def test_each_mistake_of_a_filter_file_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """No server is asked for a file that is wrong."""
    file = tmp_path / "filters.yaml"
    file.write_text("org_units: {a: {velocity_filters: [{id: vf, name: x}]}}")
    assert run(monkeypatch, "filters", "apply", str(file)) == 2
    lines = capsys.readouterr().err.splitlines()
    start = f"processor: {file}: org unit a, velocity filter vf, "
    assert lines == [
        f"{start}{name}: is required" for name in ("event_type", "threshold", "window_ms")
    ]


@pytest.mark.parametrize("arguments", [("nothing",), ("filters", "apply"), ("migrate", "--fast")])
def test_a_command_that_does_not_exist_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    """The usage goes to stderr."""
    assert run(monkeypatch, *arguments) == 2
    assert "Error: " in capsys.readouterr().err


def test_a_missing_extra_is_named_with_the_command_that_installs_it() -> None:
    """A module of our own that is missing is a defect, and shows as one."""
    told = pytest.raises(
        StartRefused, match=r"not_there is not installed: in a checkout run pip install '\.\["
    )
    with told, command.extra("embedded"):
        import not_there  # type: ignore[import-not-found] # noqa: F401, PLC0415
    with pytest.raises(ModuleNotFoundError), command.extra("embedded"):
        import processor.not_there  # type: ignore[import-not-found] # noqa: F401, PLC0415


def test_a_command_loads_only_its_part() -> None:
    """`migrate` needs no Kafka, no Redis and no filters."""
    code = "import sys; from processor.io import migrate; import processor.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"aiokafka", "redis", "re2", "schemas", "jgo"} & set(done.stdout.split())


def test_the_first_process_of_a_container_hears_sigterm_before_it_works() -> None:
    """The kernel keeps a signal from it that it has no handler for.  Here it waits for a Kafka that says nothing."""
    code = "import os; os.getpid = lambda: 1; from processor.__main__ import main; main()"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        kafka = f"127.0.0.1:{silent.getsockname()[1]}"
        environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka}
        command = [sys.executable, "-c", code, "worker"]
        with subprocess.Popen(command, env=environment) as process, silent.accept()[0]:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 128 + signal.SIGTERM
