"""Every failure the processor knows, and what is done about it.

::

    Failure
    ├── Retryable      a dependency is away or busy: back off and try again until the lane closes
    │   └── Unsettled  Kafka has forgotten to end a transaction: the lane ends it
    ├── Unstorable     Postgres cannot hold a value it was given: the one event becomes a dead letter
    ├── Fenced         a newer owner of the partition exists: drop the lane, join the group again
    ├── Stopped        going on would lose or guess: the lane, or the engagement service, stops until an operator acts
    └── StartRefused   the process cannot start as it is configured: one line that says what to do, exit code 2

Anything else is a defect and ends the process.  Bad input is no failure: it is a value (`processor.pure.types.Rejected`).
Adapters in `processor.io` translate their driver's errors into these once, at their edge.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class Failure(Exception):
    """Base of all of these; its text is one sentence for an operator."""


class Retryable(Failure):
    """A dependency did not answer as it should; the same call may succeed later."""

    def __init__(self, dependency: str, reason: str) -> None:
        super().__init__(f"{dependency}: {reason}")
        self.dependency = dependency
        self.reason = reason


class Unsettled(Retryable):
    """What a lane has published last is neither visible nor given up, and nobody but the lane's own producer can end it."""


class Unstorable(Failure):
    """Postgres cannot hold a value it was given; another try cannot help."""

    def __init__(self, code: str) -> None:
        super().__init__(f"postgres: cannot hold a value (SQLSTATE {code})")
        self.code = code


class Fenced(Failure):
    """Another worker owns this partition now."""


class Stopped(Failure):
    """A lane or the engagement service must not go on by itself; the text says what resumes it."""


class StartRefused(Failure):
    """The process cannot start; the text says what is wrong and what to do."""


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Raises `StartRefused` for every failure, after `what`: a command does not try again by itself."""
    try:
        yield
    except StartRefused:
        raise
    except Failure as error:
        raise StartRefused(f"{what}: {error}") from error
