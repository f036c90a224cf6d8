"""What a wrong token costs who shows it, and what it tells: one look-up, no memory, and always the same answer.

A secret has 256 random bits: at a million guesses a second half of them take 10^63 years.  How long an answer takes is no test: the comparison
is the library's that takes as long for any two texts, and that it is used is looked up in the source.
"""

import ast
import base64
import inspect
import secrets
from collections.abc import Iterator

import pytest

from processor.api.auth import Tokens
from processor.io import tokens
from processor.io.postgres import Postgres
from tests.api.client import Api, api

__all__ = ["api"]


class Counting:
    """A Postgres whose look-ups are counted."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self.asked = 0

    async def fetch(self, name: str, *args: object) -> list[object]:
        """Passes it on."""
        self.asked += 1
        return await self._postgres.fetch(name, *args)


def wrong(token: str) -> Iterator[tuple[str, int]]:
    """Guesses that are near a token, each with the look-ups it may cost."""
    kind, prefix, secret = token.split("_", 2)
    other = secrets.token_hex(8)
    yield f"{kind}_{other}_{secret}", 1
    yield f"{kind}_{prefix}_{secrets.token_urlsafe(32)}", 1
    yield token[:-1] + ("A" if token[-1] != "A" else "B"), 1
    yield token.upper(), 0
    yield token[:-1], 0
    yield f"{token}x", 0
    yield f"{kind}_{prefix}_", 0
    yield prefix, 0
    yield "ogt_' OR true --_" + secret, 0
    yield f"{token}\0", 0
    yield "x" * 10_000, 0


@pytest.mark.e2e
async def test_every_wrong_token_gets_the_same_answer_for_one_look_up_at_most(api: Api) -> None:
    """Whether its prefix exists or not; what cannot be a token is not even looked up."""
    token = await api.token()
    counting = Counting(api.services.postgres)
    believed = Tokens(counting, api.now)  # type: ignore[arg-type]
    answers = set()
    for guess, most in wrong(token):
        counting.asked = 0
        assert await believed.principal(guess) is None
        assert counting.asked == most, guess[:40]
        if "\0" not in guess:
            answer = await api.bearing(guess).get("/events")
            kept = {k: v for k, v in answer.headers.items() if k != "date"}
            answers.add((answer.status_code, answer.content, *kept.items()))
    (only,) = answers
    assert only[0] == 401
    assert believed._found == {}


@pytest.mark.e2e
async def test_a_revoked_or_expired_token_tells_no_more_than_a_wrong_one(api: Api) -> None:
    """Nobody learns that it was one."""
    revoked, expired = await api.token(name="bob"), await api.token(lasts_ms=1)
    await tokens.revoke(api.owner, revoked.split("_")[1], "test")
    never = f"ogt_{'0' * 16}_{'A' * 43}"
    answers = [await api.bearing(token).get("/events") for token in (revoked, expired, never)]
    assert {(answer.status_code, answer.content) for answer in answers} == {
        (401, answers[0].content)
    }


@pytest.mark.e2e
async def test_a_good_token_is_looked_up_once_in_a_while(api: Api) -> None:
    """A flood of requests with it is no flood of look-ups."""
    counting = Counting(api.services.postgres)
    believed = Tokens(counting, api.now)  # type: ignore[arg-type]
    token = await api.token()
    api.now.at = api.now()
    for _ in range(100):
        assert await believed.principal(token)
    assert counting.asked == 1


@pytest.mark.e2e
async def test_a_secret_has_256_random_bits(api: Api) -> None:
    """Of the system's generator; no two tokens share a secret or a prefix."""
    made = [(await api.token()).split("_", 2) for _ in range(20)]
    for _, prefix, secret in made:
        assert len(base64.urlsafe_b64decode(secret + "=")) == 32
        assert len(bytes.fromhex(prefix)) == 8
    assert len({prefix for _, prefix, _ in made} | {secret for *_, secret in made}) == 40


def test_secrets_are_compared_in_constant_time_and_made_by_the_system() -> None:
    """By no other comparison in the module, and by no other generator."""
    module = ast.parse(inspect.getsource(tokens))
    find = next(
        n for n in ast.walk(module) if isinstance(n, ast.AsyncFunctionDef) and n.name == "find"
    )
    compared = [ast.unparse(n) for n in ast.walk(find) if isinstance(n, ast.Compare)]
    assert [one for one in compared if "hash" in one or "token" in one] == []
    called = [ast.unparse(n.func) for n in ast.walk(module) if isinstance(n, ast.Call)]
    assert called.count("hmac.compare_digest") == 1
    assert {name for name in called if name.startswith(("secrets.", "random"))} == {
        "secrets.token_hex",
        "secrets.token_urlsafe",
    }
