"""Who comes, and what they do: each visit yields acts, timed relative to the one before.  Times are milliseconds."""

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

AGENTS = ("Mozilla/5.0 (Macintosh)", "Mozilla/5.0 (Windows NT 10.0)", "Mozilla/5.0 (X11; Linux)")
PHONE = "Mozilla/5.0 (iPhone)"
CRAWLERS = ("Mozilla/5.0 (compatible; Examplebot/2.1)", "site-crawler/0.9", "Baiduspider")
PAGES = ("/", "/pricing", "/docs", "/blog/why", "/about", "/dashboard", "/contact")
SPELLINGS = {
    "page view": ("page_view", "Page View", "page-view", "PAGE_VIEW"),
    "email open": ("email_open", "Email Open", "email-open"),
    "link click": ("link_click", "Link Click"),
    "form submit": ("form_submit",),
}


class Visitor(NamedTuple):
    """A lead."""

    org_unit: str
    lead_id: str


class Act(NamedTuple):
    """One event; ``at`` counts from the act before.  ``sent_after``: how long after that one it is sent, where it waited."""

    visitor: Visitor
    event_type: str
    metadata: dict[str, Any]
    at: int = 0
    sent_after: int | None = None
    has_id: bool = True


def visit(r: random.Random, number: int) -> Iterator[Act]:
    """Somebody comes; ``number`` makes new leads."""
    kinds: tuple[Callable[[random.Random, Visitor], Iterator[Act]], ...]
    kinds = _person, _phone, _mail_scanner, _link_scanner, _crawler, _tester
    who = r.choices(kinds, weights=(70, 8, 5, 2, 2, 4))[0]
    return who(r, _visitor(r, number))


def _visitor(r: random.Random, number: int) -> Visitor:
    """Mostly somebody new, else one of a few hundred regulars."""
    lead = f"lead-{number}" if _happens(r, 0.6) else f"regular-{r.randrange(400)}"
    return Visitor("acme" if _happens(r, 0.8) else "globex", lead)


def _happens(r: random.Random, share: float) -> bool:
    return r.random() < share


def _spelled(r: random.Random, event_type: str) -> str:
    return r.choice(SPELLINGS[event_type])


def _metadata(r: random.Random, agent: str, **more: Any) -> dict[str, Any]:
    network = "10.1" if _happens(r, 0.02) else f"{r.randrange(60, 200)}.{r.randrange(256)}"
    ip = f"{network}.{r.randrange(256)}.{r.randrange(1, 255)}"
    return {"user_agent": agent, "url": r.choice(PAGES), "net": {"ip": ip}, **more}


def _person(r: random.Random, visitor: Visitor) -> Iterator[Act]:
    """Opens a mail, reads some pages, perhaps fills in a form."""
    agent, pause = r.choice(AGENTS), 0
    kinds = ["page view"] * r.randrange(1, 7)
    if _happens(r, 0.4):
        kinds = ["email open", "link click", *kinds]
    if _happens(r, 0.2):
        kinds.append("form submit")
    for kind in kinds:
        metadata = _metadata(r, agent, seconds_on_page=round(r.uniform(0.5, 90), 2))
        yield Act(visitor, _spelled(r, kind), metadata, pause, has_id=_happens(r, 0.97))
        pause = r.randrange(400, 9_000)


def _phone(r: random.Random, visitor: Visitor) -> Iterator[Act]:
    """Was offline for up to half an hour: sends what it kept all at once, in any order."""
    back = -r.randrange(60_000, 1_800_000)
    times = [back + r.randrange(60_000) for _ in range(r.randrange(3, 9))]
    last = 0
    for n, at in enumerate(times):
        metadata = _metadata(r, PHONE, battery=r.random())
        sent_after = None if n == 0 else r.randrange(5)
        yield Act(visitor, _spelled(r, "page view"), metadata, at - last, sent_after)
        last = at


def _mail_scanner(r: random.Random, visitor: Visitor) -> Iterator[Act]:
    """Opens each mail ten times in two seconds, before anybody reads it."""
    for n in range(r.randrange(6, 14)):
        metadata = _metadata(r, "MailGuard/3", mail=f"m-{n % 3}")
        pause = r.randrange(20, 300) if n else 0
        yield Act(visitor, _spelled(r, "email open"), metadata, pause)


def _link_scanner(r: random.Random, visitor: Visitor) -> Iterator[Act]:
    """Follows every link of a mail."""
    for n in range(r.randrange(5, 15)):
        metadata = _metadata(r, "LinkCheck/1", link=n)
        yield Act(visitor, _spelled(r, "link click"), metadata, r.randrange(10, 150) if n else 0)


def _crawler(r: random.Random, visitor: Visitor) -> Iterator[Act]:
    """Loads page after page; two of three say what they are."""
    agent = r.choice((*CRAWLERS, *CRAWLERS, *AGENTS))
    for n in range(r.randrange(20, 50)):
        metadata = _metadata(r, agent, depth=n)
        yield Act(visitor, _spelled(r, "page view"), metadata, r.randrange(60, 300) if n else 0)


def _tester(r: random.Random, visitor: Visitor) -> Iterator[Act]:
    """Somebody's tests run against production."""
    for n in range(r.randrange(1, 5)):
        metadata = _metadata(r, "qa-suite", env=r.choice(("staging", "QA", "production")))
        kind = r.choice(("page view", "form submit"))
        yield Act(visitor, _spelled(r, kind), metadata, r.randrange(50, 500) if n else 0)
