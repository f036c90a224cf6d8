"""Workers that break one rule each, to show that the checker would find it: the rule's invariant is violated, nothing crashes."""

from collections.abc import Callable
from typing import TypeAlias

from processor.worker import OpenSink
from tests.faults.points import Points

Mutant: TypeAlias = Callable[[OpenSink, Points], OpenSink]

MUTANTS: dict[str, Mutant] = {}
