"""What the doctor makes of what it is told, and what it tells of settings."""

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from processor import doctor
from processor.io import kafka_topics
from processor.io.checkup_postgres import TABLES
from processor.pure import checkup, checkup_kafka, findings
from processor.pure.checkup import Postgres, Redis, Rights
from processor.pure.checkup_kafka import Group, Role, Topic
from processor.pure.findings import Finding
from processor.pure.lane import Bounds
from processor.settings import Settings

IO = Path(__file__).parents[2] / "processor" / "io"
DAY = 86_400_000
RAW = Role("events.raw", reads=True, rows=True)
ENRICHED = Role("events.enriched", writes=True, carries="events.raw")
DEAD = Role("events.dead", writes=True, carries="events.raw")
CONFIGS = {
    "retention.ms": str(7 * DAY),
    "retention.bytes": "-1",
    "cleanup.policy": "delete",
    "min.insync.replicas": "2",
    "max.message.bytes": "1048588",
    "message.timestamp.type": "CreateTime",
    "message.timestamp.after.max.ms": "3600000",
    "message.timestamp.before.max.ms": "9223372036854775807",
}
TOPIC = Topic("events.raw", 8, 0, 3, 3, CONFIGS, 0x7FFF)
REDIS = Redis("", "Valkey", "9.1.0", "master", "noeviction", 0, 1 << 20)
POSTGRES = Postgres(
    18, "UTF8", False, False, {"fsync": "on", "synchronous_commit": "on"}, 3, 97, 6400
)
RIGHTS = Rights("app", (), hidden=False, api_role=True, workers=1)


def levels(found: object) -> set[str]:
    """The levels of findings."""
    assert isinstance(found, list | tuple)
    return {finding.level for finding in found}


def test_a_topic_as_it_should_be_is_one_line() -> None:
    """With its partitions and how long it keeps messages."""
    (found,) = checkup_kafka.topic(TOPIC, RAW, 3)
    assert str(found) == "ok       topic events.raw: 8 partitions, kept for 7d"


@pytest.mark.parametrize(
    ("more", "level", "said"),
    [
        ({"leaderless": 1}, "fault", "1 partitions have no leader"),
        ({"in_sync": 1}, "fault", "nothing can be written"),
        ({"in_sync": 2}, "warning", "2 of 3 replicas are in sync"),
        ({"allowed": 1 << checkup_kafka.WRITE}, "fault", "READ is not allowed"),
    ],
)
def test_a_topic_that_cannot_be_used_is_a_fault(
    more: dict[str, int], level: str, said: str
) -> None:
    """One that may become so is a warning."""
    (found,) = checkup_kafka.topic(replace(TOPIC, **more), RAW, 3)
    assert found.level == level
    assert said in found.said
    assert found.todo


@pytest.mark.parametrize(
    ("config", "value", "level"),
    [
        ("cleanup.policy", "compact", "fault"),
        ("cleanup.policy", "compact,delete", "fault"),
        ("retention.ms", "3600000", "fault"),
        ("retention.ms", "-1", "warning"),
        ("retention.bytes", "1000", "warning"),
        ("message.timestamp.type", "LogAppendTime", "warning"),
        ("min.insync.replicas", "1", "warning"),
        ("unclean.leader.election.enable", "true", "warning"),
    ],
)
def test_a_setting_that_loses_messages_is_told_with_what_to_run(
    config: str, value: str, level: str
) -> None:
    """The line names topic and setting."""
    configs = CONFIGS | {config: value}
    (found,) = checkup_kafka.topic(replace(TOPIC, configs=configs), RAW, 3)
    assert found.level == level
    assert found.part == "topic events.raw"
    assert f"--topic events.raw --add-config {config}=" in found.todo


def test_a_topic_whose_configuration_is_hidden_is_a_fault() -> None:
    """And nothing is guessed of it, nor of what others have to do with it."""
    hidden = replace(TOPIC, configs={})
    (found,) = checkup_kafka.topic(hidden, RAW, 3)
    assert (found.level, "DESCRIBE_CONFIGS" in found.todo) == ("fault", True)
    both = {"events.raw": hidden, "events.dead": replace(hidden, name="events.dead")}
    assert list(checkup_kafka.together(both, (RAW, DEAD), "events.dead")) == []
    assert list(checkup_kafka.remembered(both["events.dead"], 1)) == []


def test_an_output_that_readers_are_late_for_is_a_warning_alone() -> None:
    """Nothing is lost for the processor."""
    topic = replace(TOPIC, name="events.enriched", configs=CONFIGS | {"retention.ms": "1000"})
    assert levels(checkup_kafka.topic(topic, ENRICHED, 3)) == {"warning"}


def test_topics_fit_each_other() -> None:
    """Letters hold twice what the raw topic takes and have times of their own; other outputs let in whatever that lets in."""
    large = CONFIGS | {"max.message.bytes": "2097176", "message.timestamp.after.max.ms": "1"}
    topics = {
        "events.raw": TOPIC,
        "events.enriched": replace(TOPIC, name="events.enriched"),
        "events.dead": replace(TOPIC, name="events.dead", configs=large),
    }
    roles = (RAW, ENRICHED, DEAD)
    assert list(checkup_kafka.together(topics, roles, "events.dead")) == []
    topics["events.dead"] = replace(TOPIC, name="events.dead")
    topics["events.enriched"] = replace(
        topics["events.enriched"],
        partitions=4,
        configs=CONFIGS | {"message.timestamp.after.max.ms": "1"},
    )
    spread, times, letters = checkup_kafka.together(topics, roles, "events.dead")
    assert (spread.level, times.level, letters.level) == ("warning", "fault", "fault")
    assert "max.message.bytes=2097176" in letters.todo
    del topics["events.raw"]
    assert list(checkup_kafka.together(topics, roles, "events.dead")) == []


def test_what_was_let_in_long_ago_is_let_out() -> None:
    """A record keeps its timestamp, however long its topic kept it: retention takes whole segments, and merges stay for long."""
    limit, needed = checkup_kafka.BEFORE, checkup_kafka.ANY_AGE_MS
    source = replace(TOPIC, configs=CONFIGS | {limit: str(DAY), "retention.ms": str(7 * DAY)})
    output = replace(TOPIC, name="events.enriched")

    def found(allowed: int) -> list[Finding]:
        told = replace(output, configs=CONFIGS | {limit: str(allowed)})
        topics = {"events.raw": source, "events.enriched": told}
        return [*checkup_kafka.together(topics, (RAW, ENRICHED), "events.dead")]

    assert found(needed) == []
    (fault,) = found(needed - 1)
    assert fault.level == "fault"
    assert f"--add-config {limit}={needed}" in fault.todo


def test_outputs_are_created_to_take_records_of_any_age() -> None:
    """A broker's defaults may say otherwise, and each refused record stops a lane."""
    enriched, *_ = kafka_topics._outputs(Settings(), 8, 3, 2_000_000)
    for limit in ("before", "after"):
        said = enriched.topic_configs[f"message.timestamp.{limit}.max.ms"]
        assert int(said) == checkup_kafka.ANY_AGE_MS


@pytest.mark.parametrize(
    ("retention", "minutes", "warned"),
    [
        (6 * DAY, 10_080, False),
        (6 * DAY + 1, 10_080, True),
        (-1, 10_080, True),
        (30 * DAY, None, False),
    ],
)
def test_letters_are_gone_before_it_is_forgotten_that_they_were_replayed(
    retention: int, minutes: int | None, warned: bool
) -> None:
    """A segment goes as a whole; what we may not know is no warning."""
    configs = CONFIGS | {"retention.ms": str(retention), "segment.ms": str(DAY)}
    dead = replace(TOPIC, name="events.dead", configs=configs)
    found = [*checkup_kafka.remembered(dead, minutes)]
    assert [one.level for one in found] == ["warning"] * warned


def test_a_place_outside_the_topic_names_the_command_that_moves_it() -> None:
    """Its lane has stopped, or will."""
    places = {("events.raw", 0): Bounds(3, 5, 9), ("events.raw", 1): Bounds(9, 5, 9)}
    told, fault = checkup_kafka.group(Group("g", 2, may_read=True, places=places))
    assert told.said == "2 workers, 6 records to read, at most 6 in a partition"
    assert fault.level == "fault"
    assert "processor offsets reset --topic events.raw --partition 0 --to earliest" in fault.todo


def test_records_that_nobody_reads_are_a_warning() -> None:
    """No worker runs; without records that is no news."""
    waiting = {("events.raw", 0): Bounds(None, 5, 9)}
    assert levels([*checkup_kafka.group(Group("g", 0, may_read=True, places=waiting))]) == {
        "warning"
    }
    assert levels([*checkup_kafka.group(Group("g", 0, may_read=True, places={}))]) == {"ok"}
    assert levels([*checkup_kafka.group(Group("g", 0, may_read=False, places={}))]) == {"fault"}


@pytest.mark.parametrize(
    ("versions", "level"),
    [
        ({0: 13, 1: 18, 3: 13}, "ok"),
        ({0: 9, 1: 15, 24: 4}, "ok"),
        ({0: 9, 1: 15, 24: 3}, "warning"),
        ({}, "fault"),
    ],
)
def test_brokers_tell_their_age_by_what_they_speak(versions: dict[int, int], level: str) -> None:
    """Kafka has no request for its version."""
    known = dict.fromkeys((22, 24, 25, 26, 28), 0) if versions else {}
    assert checkup_kafka.brokers(1, known | versions).level == level


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"version": "6.2.1"}, "redis"),
        ({"role": "slave"}, "redis"),
        ({"policy": "allkeys-lru"}, "redis eviction"),
        ({"limit": 1 << 20}, "redis memory"),
        ({"version": "6.2.1", "where": " one:6379"}, "redis one:6379"),
        ({"policy": "allkeys-lru", "where": " one:6379"}, "redis eviction one:6379"),
    ],
)
def test_a_redis_that_would_lose_windows_is_a_fault(more: dict[str, object], part: str) -> None:
    """Each by its own line, the others stay good."""
    found = list(checkup.redis(replace(REDIS, **more)))
    assert [one.part for one in found if one.level == "fault"] == [part]
    assert levels(list(checkup.redis(REDIS))) == {"ok"}


def test_a_command_of_the_scripts_that_is_refused_is_a_fault() -> None:
    """It is named."""
    found = checkup.redis_rights(["ZADD: no"])
    assert (found.level, found.said) == ("fault", "ZADD: no")
    assert checkup.redis_rights([]).level == "ok"


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"version": 15}, "postgres"),
        ({"replica": True}, "postgres"),
        ({"encoding": "LATIN1"}, "postgres"),
        ({"durable": {"fsync": "on", "synchronous_commit": "off"}}, "postgres durability"),
    ],
)
def test_a_postgres_that_would_lose_verdicts_is_a_fault(more: dict[str, object], part: str) -> None:
    """Each by its own line."""
    found = list(checkup.postgres(replace(POSTGRES, **more)))
    assert [one.part for one in found if one.level == "fault"] == [part]
    assert levels(list(checkup.postgres(POSTGRES))) == {"ok"}


def test_room_is_told_before_it_runs_out() -> None:
    """64 locks for each of 100 connections are two workers."""
    assert [one.level for one in checkup.room(POSTGRES, 10, 2)] == ["ok", "ok"]
    assert [one.level for one in checkup.room(POSTGRES, 10, 3)] == ["ok", "warning"]
    full = replace(POSTGRES, connections=90)
    assert [one.level for one in checkup.room(full, 10, 1)] == ["warning", "ok"]


@pytest.mark.parametrize("more", [{"lacking": ("events",)}, {"hidden": True}, {"api_role": False}])
def test_a_user_that_may_not_do_it_all_is_a_fault(more: dict[str, object]) -> None:
    """The line says which role to use, or what to grant."""
    assert checkup.rights(RIGHTS).level == "ok"
    found = checkup.rights(replace(RIGHTS, **more))
    assert found.level == "fault"
    assert "role" in found.todo or "GRANT" in found.todo


@pytest.mark.parametrize(
    ("ahead", "level"), [(999, "ok"), (-5_000, "warning"), (61_000, "fault"), (-61_000, "fault")]
)
def test_clocks_agree_within_a_second(ahead: int, level: str) -> None:
    """A minute is what expiring windows allow for."""
    assert checkup.clock("redis clock", ahead).level == level


def test_every_command_of_the_scripts_is_tried() -> None:
    """What a script of windows calls, the probe does."""
    called = {
        name
        for path in IO.glob("windows_*.lua")
        for name in re.findall(r"redis\.call\('(\w+)'", path.read_text())
    }
    tried = set(re.findall(r"try\('(\w+)'", (IO / "checkup_probe.lua").read_text()))
    assert called
    assert called <= tried


def test_every_table_is_looked_at() -> None:
    """Whatever migration has made it."""
    assert {"events", "lanes", "event_counts", "tokens", "merge_requests"} <= set(TABLES)
    assert len(TABLES) == len(set(TABLES))


def test_settings_are_told_without_their_secrets() -> None:
    """Of a URL what it leads to."""
    settings = Settings.model_validate(
        {
            "DATABASE_URL": "postgresql://ann:hush@db:5432/acme?password=hush",
            "KAFKA_SASL_PASSWORD": "hush",
            "ALLOWED_LATENESS": "2h",
        }
    )
    told = doctor.told(settings)
    assert "hush" not in told
    assert "DATABASE_URL=postgresql://***@db:5432/acme" in told
    assert "KAFKA_SASL_PASSWORD=***" in told
    assert "ALLOWED_LATENESS=2h" in told


def test_faults_alone_end_with_1() -> None:
    """Warnings may stand."""
    good = [findings.ok("a", "b"), findings.warning("a", "b", "c")]
    assert findings.healthy(good)
    bad = [*good, Finding("fault", "a", "b", "c")]
    assert not findings.healthy(bad)
    assert findings.summary(bad) == "1 ok, 1 warning, 1 fault"
