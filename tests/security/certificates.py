"""Certificates for servers of tests: made anew for each session by the ``keytool`` of the packaged Java, which every machine has.

It keeps them in a keystore of Java's first kind, the only one whose keys can be read with nothing but SHA-1; a private key
goes from there into a PEM file, which Kafka, OpenSSL and Python all take.
"""

import hashlib
import ssl
import struct
import subprocess
import textwrap
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from processor.embedded.recipes import java

_PASSWORD = "changeit"
_PRIVATE_KEY = 1
_SALT = 20
_CHECK = 20
_PROTECTED = bytes.fromhex("300c060a2b060104012a02110101")
"""How a key is protected, which is what its entry begins with."""


class Certificates(NamedTuple):
    """Files in PEM form; a server's has its private key and its chain."""

    authority: Path
    """What a client trusts."""
    server: Path
    """For 127.0.0.1 and localhost, signed by the authority."""
    elsewhere: Path
    """Of the same authority, for another host."""
    stranger: Path
    """An authority that signed none of these."""


def made(folder: Path) -> Certificates:
    """All of them, in a folder."""
    store = folder / "store.jks"
    authority = ("-ext", "bc:c=ca:true", "-ext", "ku:c=keyCertSign")
    signed = ("-signer", "authority", "-signerkeypass", _PASSWORD)
    _add(store, "authority", *authority)
    _add(store, "stranger", *authority)
    _add(store, "server", *signed, "-ext", "san=ip:127.0.0.1,dns:localhost")
    _add(store, "elsewhere", *signed, "-ext", "san=dns:elsewhere.example")
    entries = _read(store.read_bytes())
    return Certificates(
        _written(folder, "authority", *entries["authority"][1]),
        _written(folder, "server", entries["server"][0], *entries["server"][1]),
        _written(folder, "elsewhere", entries["elsewhere"][0], *entries["elsewhere"][1]),
        _written(folder, "stranger", *entries["stranger"][1]),
    )


def server_context(certificate: Path) -> ssl.SSLContext:
    """Of a server that shows this certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


def _add(store: Path, alias: str, *more: str) -> None:
    keytool = Path(java()).with_name("keytool")
    asked = {
        "-alias": alias,
        "-keystore": str(store),
        "-storetype": "JKS",
        "-storepass": _PASSWORD,
        "-keypass": _PASSWORD,
        "-keyalg": "EC",
        "-groupname": "secp256r1",
        "-dname": f"CN={alias}",
        "-validity": "30",
    }
    words = [word for pair in asked.items() for word in pair]
    command = [str(keytool), "-J-XX:TieredStopAtLevel=1", "-genkeypair", *words, *more]
    subprocess.run(command, check=True, capture_output=True, timeout=50)


def _written(folder: Path, name: str, *blocks: str) -> Path:
    path = folder / f"{name}.pem"
    path.touch(mode=0o600)
    path.write_text("".join(blocks))
    return path


def _read(store: bytes) -> Mapping[str, tuple[str, list[str]]]:
    """Private key and certificate chain of each entry, PEM."""
    words = _Words(store, 12)
    (number,) = struct.unpack_from(">I", store, 8)
    return dict(_entry(words) for _ in range(number))


def _entry(words: "_Words") -> tuple[str, tuple[str, list[str]]]:
    assert words.number(4) == _PRIVATE_KEY
    alias = words.block(2).decode()
    words.number(8)  # when it was made
    key = _pem("PRIVATE KEY", _opened(words.block(4)))
    chain = []
    for _ in range(words.number(4)):
        assert words.block(2) == b"X.509"
        chain.append(ssl.DER_cert_to_PEM_cert(words.block(4)))
    return alias, (key, chain)


class _Words:
    """What is read of a keystore, from a place on."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data = data
        self._place = place

    def number(self, size: int) -> int:
        return int.from_bytes(self._taken(size))

    def block(self, prefix: int) -> bytes:
        return self._taken(self.number(prefix))

    def _taken(self, size: int) -> bytes:
        self._place += size
        return self._data[self._place - size : self._place]


def _opened(protected: bytes) -> bytes:
    """A PKCS #8 key out of its protection: a stream of SHA-1 over password and salt."""
    sealed = protected.partition(_PROTECTED)[2][2:]
    salt, hidden, check = sealed[:_SALT], sealed[_SALT:-_CHECK], sealed[-_CHECK:]
    password = _PASSWORD.encode("utf-16-be")
    key = bytes(a ^ b for a, b in zip(hidden, _stream(password, salt), strict=False))
    assert hashlib.sha1(password + key).digest() == check
    return key


def _stream(password: bytes, salt: bytes) -> Iterator[int]:
    while True:
        salt = hashlib.sha1(password + salt).digest()
        yield from salt


def _pem(kind: str, der: bytes) -> str:
    lines = "\n".join(textwrap.wrap(b64encode(der).decode(), 64))
    return f"-----BEGIN {kind}-----\n{lines}\n-----END {kind}-----\n"
