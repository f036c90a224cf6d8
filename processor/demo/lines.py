"""Plain lines, for where no terminal is: one a step of the start, then one a second."""

import asyncio
from time import monotonic

from processor.demo.curls import ORG_UNIT
from processor.demo.output import say
from processor.demo.scene import REASON_NAMES, Scene
from processor.demo.seen import REASONS

EVERY_S = 1.0


async def show(scene: Scene) -> None:
    """Writes until it is cancelled; raises `Unread`."""
    said: set[str] = set()
    told = False
    while True:
        for name in [n for n in scene.steps.ended if n not in said]:
            said.add(name)
            say(f"{name}: {scene.steps.took(name):.1f} s")
        if scene.addresses and not told:
            told = True
            say("; ".join([*(f"{a.name} {a.text}" for a in scene.addresses), scene.note]))
            say(f"API token of org unit {ORG_UNIT}: {scene.token}")
            for command in scene.curls:
                say(command)
        if scene.playing_since is not None:
            say(line(scene, monotonic()))
        await asyncio.sleep(EVERY_S if scene.playing_since is not None else EVERY_S / 5)


def line(scene: Scene, now: float) -> str:
    """What there is to say of this second."""
    seen = scene.seen
    (rate,) = seen.rates(now, 1)
    half, most = seen.latency_ms(0.5, 0.99)
    verdicts = ", ".join(f"{REASON_NAMES[r]} {seen.reasons[r]}" for r in REASONS)
    return (
        f"{scene.played_s:5.1f} s {scene.phase}: {rate} events/s, lag {seen.lag},"
        f" latency p50 {half:.0f} ms p99 {most:.0f} ms; sent {scene.counts.sent}, {verdicts};"
        f" duplicates {seen.duplicates}, merges {seen.merges}, dead letters {seen.letters}"
    )
