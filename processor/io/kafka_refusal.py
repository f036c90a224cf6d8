"""Why Kafka does not let us in: the client itself says no more than that no broker could be asked.

Asked after a start has failed, by one more connection to each broker named, until one says why.
"""

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiokafka.conn import AIOKafkaConnection, collect_hosts
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

_ASKED_S = 5.0
_CLOSED_S = 1.0
_OTHER_HOST = frozenset((62, 64))
"""What OpenSSL calls a certificate for another name, or for another address."""


class ConfigsHiddenError(KafkaError):  # type: ignore[misc]  # aiokafka ships no types
    """The cluster does not tell how a topic or broker is set up; its text ends with what to do."""


async def refusal(connection: Mapping[str, Any]) -> str | None:
    """What is wrong and which setting to look at; None where no broker named can be reached at all.

    `connection` is what the client was given.
    """
    how = {name: value for name, value in connection.items() if name != "bootstrap_servers"}
    with suppress(TimeoutError):
        async with asyncio.timeout(_ASKED_S):
            for host, port, _ in collect_hosts(connection["bootstrap_servers"]):
                try:
                    await _ask(host, port, how)
                except (KafkaError, OSError, ValueError) as error:
                    if said := _said(error, f"{host}:{port}"):
                        return said
    return None


async def _ask(host: str, port: int, how: Mapping[str, Any]) -> None:
    conn = AIOKafkaConnection(host, port, **how)
    try:
        await conn.connect()
        await conn.send(MetadataRequest([]))
    except (KafkaError, ValueError):
        # Whoever asked ends now, and its event loop: a close that is still under way would leave the socket open.
        await asyncio.wait([conn.close()], timeout=_CLOSED_S)
        raise
    finally:
        conn.close()


def _said(error: Exception, server: str) -> str | None:
    match error:
        case ssl.SSLError():
            return _of_tls(error, server)
        case KafkaConnectionError() if isinstance(error.__cause__, ssl.SSLError):
            why = f"refuses our certificate, or wants one ({error.__cause__.reason})"
            return f"{server} {why}; check KAFKA_SSL_CERTFILE"
        case KafkaConnectionError() | ConnectionResetError():
            settings = "KAFKA_BOOTSTRAP_SERVERS and KAFKA_SECURITY_PROTOCOL"
            return f"{server} ends the connection; check {settings}"
        case UnsupportedSaslMechanismError():
            return f"{server} does not take this mechanism; check KAFKA_SASL_MECHANISM"
        # A server that proves no knowledge of the password is a ValueError.
        case SaslAuthenticationFailed() | ValueError():
            settings = "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
            return f"{server} does not accept the user or the password; check {settings}"
        case _:
            return None


def _of_tls(error: ssl.SSLError, server: str) -> str:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return f"{server} and we do not agree on TLS; check KAFKA_SECURITY_PROTOCOL"
    if error.verify_code in _OTHER_HOST:
        todo = "name it in KAFKA_BOOTSTRAP_SERVERS as its certificate does"
        return f"the certificate of {server} is that of another host; {todo}"
    why = error.verify_message
    return f"the certificate of {server} is not trusted ({why}); check KAFKA_SSL_CAFILE"
