"""Servers of their own for the tests that strike them."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.servers import FaultStack


@pytest.fixture(scope="session")
def fault_stack() -> Iterator[FaultStack]:
    """Started at the first use; nobody else's tests notice what is done to it."""
    with (
        tempfile.TemporaryDirectory(prefix="faults-servers-") as folder,
        FaultStack(Path(folder)) as stack,
    ):
        yield stack
