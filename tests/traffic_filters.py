"""Filters for the adversarial stream: several on one type, thresholds from 0, windows from 1 ms to 30 days, every operator.

The documents are what ``filters apply`` reads (YAML, or JSON as its subset); ``LATER`` changes ``FIRST`` in every way.
"""

import copy
import json
from typing import Any

DAY = 86_400_000


def _velocity(id_: str, event_type: str, threshold: int, window_ms: int, **more: Any) -> Any:
    return {"id": id_, "name": f"Velocity {id_}", "event_type": event_type} | {
        "threshold": threshold,
        "window_ms": window_ms,
        **more,
    }


def _metadata(id_: str, *conditions: tuple[Any, ...], event_type: str = "") -> Any:
    names = ("key", "operator", "value")
    written = [dict(zip(names, condition, strict=False)) for condition in conditions]
    return {"id": id_, "name": f"Metadata {id_}", "event_type": event_type, "conditions": written}


ACME_VELOCITY = [
    _velocity("vf-a", "page_view", 3, 1_000, keep_first=True),
    _velocity("vf-b", "Page View", 6, 5_000),
    _velocity("vf-c", "PAGE-VIEW", 25, DAY, keep_first=True),
    _velocity("vf-open-0", "email_open", 0, 700, keep_first=True),
    _velocity("vf-open-2", "email_open", 2, 60_000, keep_first=True),
    _velocity("vf-qa", "qa_ping", 0, 1),
    _velocity("vf-off", "form_submit", 0, 1_000, enabled=False),
    _velocity("vf-same-ms", "click", 1, 1, keep_first=True),
    _velocity("vf-month", "click", 5, 30 * DAY),
]
ACME_METADATA = [
    _metadata("mf-agent", ("agent.name", "starts_with", "CURL")),
    _metadata("mf-bot", ("ua", "contains", "Bot")),
    _metadata("mf-cidr", ("net.ip", "in_cidr", "10.99.0.1/8")),
    _metadata("mf-cidrs", ("net.ip6", "in_cidr", ["2001:db8::1/32", "192.168.1.77/24"])),
    _metadata("mf-country", ("country", "in", ["XX", 7, False])),
    _metadata("mf-debug", ("debug", "exists"), ("prod", "not_exists")),
    _metadata("mf-five", ("plan", "equals", 5)),
    _metadata("mf-flag", ("flag", "equals", "true")),
    _metadata("mf-lang", ("tag", "exists"), ("lang", "not_equals", "de")),
    _metadata("mf-path", ("path", "matches", "^/wp-(admin|login)"), event_type="page view"),
    _metadata("mf-score", ("score", "gt", 0.5)),
    _metadata("mf-size", ("size", "lt", "10")),
    _metadata("mf-src", ("src", "exists"), ("src", "not_contains", "mail")),
    _metadata("mf-street", ("street", "ends_with", "STRASSE")),
    _metadata("mf-yes", ("yes", "equals", True)),
]
FIRST: dict[str, Any] = {
    "org_units": {
        "acme": {"velocity_filters": ACME_VELOCITY, "metadata_filters": ACME_METADATA},
        "globex": {
            "velocity_filters": [
                _velocity("vf-a", "page_view", 5, 2_000),
                _velocity("vf-open", "email_open", 1, 1_000, keep_first=True),
            ],
        },
        "Zürich 猫": {
            "velocity_filters": [_velocity("same", "page view", 2, 1_500, keep_first=True)],
            "metadata_filters": [_metadata("any", ("ua", "contains", "猫"), event_type="click")],
        },
    }
}


def _later() -> dict[str, Any]:
    document = copy.deepcopy(FIRST)
    acme = document["org_units"]["acme"]
    velocity = {f["id"]: f for f in acme["velocity_filters"]}
    velocity["vf-a"] |= {"threshold": 2}
    velocity["vf-b"] |= {"keep_first": True}
    velocity["vf-c"] |= {"name": "Only the name changes"}
    velocity["vf-open-0"] |= {"window_ms": 1_400}
    velocity["vf-off"] |= {"enabled": True}
    velocity["vf-month"] |= {"event_type": "qa-ping"}
    del velocity["vf-open-2"]
    velocity["vf-new"] = _velocity("vf-new", "page view", 4, 90_000, keep_first=True)
    acme["velocity_filters"] = list(velocity.values())
    metadata = {f["id"]: f for f in acme["metadata_filters"]}
    metadata["mf-bot"]["conditions"][0]["value"] = "spider"
    metadata["mf-score"] |= {"enabled": False}
    del metadata["mf-flag"]
    acme["metadata_filters"] = list(metadata.values())
    return document


LATER = _later()

# Values that hit and just miss each condition above; what holds a key takes one of its values.
TEMPTING: dict[str, list[Any]] = {
    "ua": [
        "GoogleBOT/2.1",
        "a bo t",
        ["x", "roBot"],
        {"bot": "bot"},
        None,
        "",
        7,
        "Spider",
        "猫bot",
    ],
    "agent": [{"name": "curl/8"}, {"name": "Xcurl"}, {"name": ["curl"]}, "curl", {"name": None}],
    "agent.name": ["cUrL", "wget", {"name": "curl"}, None],
    "net": [
        {"ip": "10.1.2.3", "ip6": "2001:db8:5::1"},
        {"ip": "::ffff:10.0.0.9", "ip6": "::ffff:192.168.1.1"},
        {"ip": "11.0.0.1", "ip6": "192.168.2.1"},
        {"ip": 167_772_161, "ip6": ["192.168.1.1"]},
        {"ip": "10.0.0.1 ", "ip6": "not an address"},
    ],
    "country": ["xx", 7, 7.0, "7", False, "FALSE", ["yy", "XX"], None, "XXX", {"XX": 1}],
    "debug": [None, False, {}, [], "x"],
    "prod": [None, True],
    "plan": [5, 5.0, "5", "05", [4, 5], True, None, {"5": 5}],
    "flag": [True, "TRUE", "true", 1, [False, True], None, "yes"],
    "tag": ["x", None],
    "lang": ["de", "DE", "fr", ["fr", "de"], ["fr"], None, {"de": "de"}],
    "path": ["/WP-Admin/x", "/wp-", "x/wp-login", "/wp-login", ["/wp-login"], None],
    "score": [0.5, 0.75, "0.75", 1, True, "abc", [1], 2**63, "-1", None],
    "size": [9, "9.5", 10, "10", -1e300, False, -(2**63), "ten", None],
    "src": ["mail", "eMAIL", "web", ["web", "mail"], ["web"], None, {"mail": 1}, 5],
    "street": ["Hauptstraße", "HAUPTSTRASSE", "Straße 1", None, ["Straße"]],
    "yes": [True, "true", "TRUE", 1, "1", False, None],
}


def as_yaml(document: dict[str, Any]) -> str:
    """The document as a file ``filters apply`` reads."""
    text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
    return text.replace("\x7f", "\\u007f")  # JSON may hold it, YAML may not
