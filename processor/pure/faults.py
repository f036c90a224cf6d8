"""Why a message is refused, as a value, and the checks on strings that every message shares."""

from collections.abc import Mapping
from typing import NoReturn

from msgspec import Struct

from processor.pure.types import Record, Rejected, Stage


class Fault(Struct, frozen=True):
    """What is wrong with a message; ``reason`` names the field and never repeats what it holds."""

    stage: Stage
    error: str
    reason: str


class Refused(Exception):
    """Carries a fault out of nested checks."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


def refuse(error: str, reason: str) -> NoReturn:
    """Raise `Refused` for a field that breaks its rule."""
    raise Refused(Fault("validate", error, reason))


def rejected(record: Record, fault: Fault) -> Rejected:
    """The record with what is wrong with it."""
    return Rejected(record, fault.stage, fault.error, fault.reason)


def required(fields: Mapping[str, object], name: str, longest: int) -> str:
    """The string of a field that must be there, 1 to ``longest`` code points; raises `Refused`."""
    value = fields.get(name)
    if value is None:
        refuse("missing_field", f"{name} is required.")
    return text(value, name, longest)


def optional(fields: Mapping[str, object], name: str, longest: int) -> str | None:
    """The string of a field that may be absent or null; raises `Refused`."""
    value = fields.get(name)
    return None if value is None else text(value, name, longest)


def text(value: object, path: str, longest: int) -> str:
    """``value`` when it is a string of 1 to ``longest`` code points without NUL and lone surrogates; else raises `Refused`."""
    if type(value) is str and 0 < len(value) <= longest and value.isascii() and "\0" not in value:
        return value  # the rule for nearly all text, without another call
    if type(value) is not str:
        refuse("wrong_type", f"{path} must be a string.")
    if not 0 < len(value) <= longest:
        refuse("bad_length", f"{path} must have 1 to {longest} characters.")
    if unstorable(value):
        refuse("bad_text", f"{path} holds NUL or a lone surrogate.")
    return value


def unstorable(value: str) -> bool:
    """Whether the text holds NUL or a lone surrogate, which no store and no UTF-8 can keep."""
    if "\0" in value:
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False
