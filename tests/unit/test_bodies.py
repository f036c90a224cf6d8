"""Bodies: who is answered while one is judged."""

import threading

import pytest

from processor.api import bodies


@pytest.mark.parametrize(("size", "beside"), [(bodies.LARGE, False), (bodies.LARGE + 1, True)])
async def test_a_large_body_is_judged_beside_the_event_loop(size: int, *, beside: bool) -> None:
    """Others are answered meanwhile; a small one is judged sooner than a thread would be asked."""
    loops = threading.current_thread()
    judge = await bodies.judged(bytes(size), lambda _: threading.current_thread())
    assert (judge is not loops) == beside


async def test_what_refuses_a_large_body_is_raised() -> None:
    """As if it were a small one."""
    with pytest.raises(ZeroDivisionError):
        await bodies.judged(bytes(bodies.LARGE + 1), lambda _: 1 // 0)
