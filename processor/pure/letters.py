"""Dead letters: what became of a message that cannot be processed, with the message itself."""

import base64
import hashlib

import orjson

from processor.pure.origin import timestamp_of
from processor.pure.types import Json, Record, Rejected

UNREAD = b"This record was not read: its batch is more than 64 MB once it is decompressed, or cannot be decompressed."
"""The value of each record of a batch that is not read: no JSON, so its dead letter tells why."""
_FRAMING = 256
"""Bytes a batch of one record takes besides key, value and headers, with room to spare."""
_HEADER_FRAMING = 10


def dead_letter(rejected: Rejected, max_bytes: int) -> bytes:
    """The value of the dead letter; the record's key and headers go with it.

    Where value, key, headers and framing together would have more than ``max_bytes``, the payload is left out and named by its hash.
    """
    record = rejected.record
    payload = record.value
    if payload is None:
        return _letter(rejected, None)
    if len(payload) < max_bytes:  # else it need not be encoded to see
        whole = _letter(rejected, base64.b64encode(payload).decode())
        if fits(record, whole, max_bytes):
            return whole
    return _letter(rejected, None, payload_sha256=hashlib.sha256(payload).hexdigest())


def fits(record: Record, value: bytes, max_bytes: int) -> bool:
    """Whether a letter of that value, with the record's key and headers, has at most so many bytes."""
    headers = sum(
        len(key.encode()) + len(held or b"") + _HEADER_FRAMING for key, held in record.headers
    )
    return len(value) + len(record.key or b"") + headers + _FRAMING <= max_bytes


def _letter(rejected: Rejected, payload: str | None, **more: Json) -> bytes:
    record = rejected.record
    return orjson.dumps(
        {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": timestamp_of(record),
            "stage": rejected.stage,
            "error": rejected.error,
            "reason": rejected.reason,
            "payload_base64": payload,
        }
        | more
    )
