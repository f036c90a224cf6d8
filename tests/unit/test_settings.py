"""Settings: the names and defaults of the contract, and one clear line for each bad value."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from processor.failures import StartRefused
from processor.io.redis_client import client_of
from processor.setting_values import duration_ms, redis_urls
from processor.settings import Settings

DEFAULTS = {
    "kafka_bootstrap_servers": "127.0.0.1:9092",
    "kafka_security_protocol": "PLAINTEXT",
    "raw_topic": "events.raw",
    "merge_topic": "leads.merges",
    "enriched_topic": "events.enriched",
    "dead_topic": "events.dead",
    "consumer_group": "processor",
    "processing_guarantee": "exactly_once",
    "filter_order": "velocity,metadata",
    "allowed_lateness_ms": 3_600_000,
    "max_future_ms": 3_600_000,
    "api_host": "127.0.0.1",
    "api_port": 8080,
    "metrics_port": None,
    "log_format": "console",
}
HOUR = 3_600_000


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set but what a test sets."""
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)


def test_defaults_are_those_of_the_contract() -> None:
    """Servers on this machine, topics by their usual names."""
    settings = Settings.load()
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS
    assert settings.redis_url.get_secret_value() == "redis://127.0.0.1:6379/0"
    assert settings.database_url.get_secret_value().startswith("postgresql://")


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As compose files and shells leave them."""
    for field in Settings.model_fields.values():
        monkeypatch.setenv(str(field.validation_alias), "")
    monkeypatch.setenv("UNKNOWN", "")
    settings = Settings.load()
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS


def test_settings_are_frozen() -> None:
    """They are read once."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings.load().raw_topic = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("0s", 0),
        ("500ms", 500),
        ("90s", 90_000),
        ("15m", 900_000),
        ("1h", HOUR),
        ("7d", 604_800_000),
    ],
)
def test_a_duration_is_a_number_with_a_unit(text: str, ms: int) -> None:
    """Read as milliseconds."""
    assert duration_ms(text) == ms


@pytest.mark.parametrize(
    "text", ["", "1", "h", "1 h", "1h ", "-1s", "1.5h", "1H", "1w", "٣s", "3651d"]
)
def test_anything_else_is_no_duration(text: str) -> None:
    """Nothing is guessed, a number without a unit neither."""
    with pytest.raises(ValueError, match="a whole number with ms, s, m, h or d"):
        duration_ms(text)


@pytest.mark.parametrize(
    ("variable", "value", "field", "read"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "a:1,b:2, [::1]:3", "kafka_bootstrap_servers", None),
        ("RAW_TOPIC", "a.b_c-1", "raw_topic", None),
        ("PROCESSING_GUARANTEE", "at_least_once", "processing_guarantee", None),
        ("FILTER_ORDER", "metadata,velocity", "filter_order", None),
        ("ALLOWED_LATENESS", "2h", "allowed_lateness_ms", 2 * HOUR),
        ("MAX_FUTURE", "90s", "max_future_ms", 90_000),
        ("API_PORT", "65535", "api_port", 65_535),
        ("METRICS_PORT", "1", "metrics_port", 1),
        ("LOG_FORMAT", "json", "log_format", None),
        (
            "ENGAGEMENT_WEIGHTS",
            "Call=2.5,page-view=0",
            "engagement_weights",
            {"Call": 2.5, "Page View": 0},
        ),
        ("SURGE_TYPES", "call, page_view", "surge_types", {"Call", "Page View"}),
        ("SURGE_THRESHOLD", "2", "surge_threshold", 2),
        ("SURGE_WINDOW", "5m", "surge_window_ms", 300_000),
    ],
)
def test_a_variable_sets_its_field(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, field: str, read: object
) -> None:
    """Each by its own name."""
    monkeypatch.setenv(variable, value)
    assert getattr(Settings.load(), field) == (value if read is None else read)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "localhost"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:1,"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:70000"),
        ("KAFKA_BOOTSTRAP_SERVERS", "http://a:1"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a..b:9092"),
        ("KAFKA_BOOTSTRAP_SERVERS", f"a:1,{'b' * 64}:1"),
        ("API_HOST", "a..b"),
        ("API_HOST", "\udcff"),
        ("CONSUMER_GROUP", "\udcff"),
        ("KAFKA_SASL_USERNAME", "a\udcff"),
        ("ENGAGEMENT_WEIGHTS", "\udcff=1"),
        ("ENGAGEMENT_WEIGHTS", "call=1_0"),
        ("SURGE_TYPES", "\udcff"),
        ("KAFKA_SECURITY_PROTOCOL", "ssl"),
        ("KAFKA_SASL_MECHANISM", "GSSAPI"),
        ("KAFKA_SSL_CAFILE", "/no/such/file"),
        ("RAW_TOPIC", "a b"),
        ("RAW_TOPIC", ".."),
        ("RAW_TOPIC", "x" * 250),
        ("RAW_TOPIC", "a\n"),
        ("CONSUMER_GROUP", "a b"),
        ("CONSUMER_GROUP", "a\n"),
        ("API_HOST", "a\n"),
        ("PROCESSING_GUARANTEE", "EXACTLY_ONCE"),
        ("FILTER_ORDER", "velocity"),
        ("FILTER_ORDER", "velocity, metadata"),
        ("ALLOWED_LATENESS", "3600"),
        ("MAX_FUTURE", "soon"),
        ("API_PORT", "0"),
        ("API_PORT", "65536"),
        ("API_PORT", "http"),
        ("API_PORT", "1_0"),
        ("API_PORT", "80.0"),
        ("API_PORT", " 80"),
        ("API_PORT", "\u0661"),
        ("METRICS_PORT", "1_0"),
        ("METRICS_PORT", "-1"),
        ("SURGE_THRESHOLD", "1_0"),
        ("LOG_FORMAT", "xml\nyaml"),
        ("ENGAGEMENT_WEIGHTS", "page_view"),
        ("ENGAGEMENT_WEIGHTS", "page_view=1,Page View=2"),
        ("ENGAGEMENT_WEIGHTS", "=1"),
        ("ENGAGEMENT_WEIGHTS", "call=-1"),
        ("ENGAGEMENT_WEIGHTS", "call=nan"),
        ("ENGAGEMENT_WEIGHTS", "call=1000001"),
        ("SURGE_TYPES", "call,,page_view"),
        ("SURGE_THRESHOLD", "1"),
        ("SURGE_THRESHOLD", "101"),
        ("SURGE_WINDOW", "60"),
    ],
)
def test_a_bad_value_is_one_line_with_variable_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """So that it can be put right without the documentation."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(StartRefused) as refused:
        Settings.load()
    text = str(refused.value)
    assert text.startswith(f"{variable} is {value!r}; allowed: ")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REDIS_URL", "http://:hunter2@host"),
        ("REDIS_URL", "redis://:hunter2@host:port"),
        ("REDIS_URL", "redis://:hunter2@host:6379/cache"),
        ("REDIS_URL", "redis://:hunter2@host:6379,other:port/0"),
        ("REDIS_URL", "redis://:hunter2@host:6379,,other:6379"),
        ("REDIS_URL", "redis://:hunter2@host:6379,"),
        ("REDIS_URL", "redis://:hunter2@a..b"),
        ("REDIS_URL", "redis://:hunter2\udcff@host"),
        ("DATABASE_URL", "postgresql://user:hunter2@host:5432,other:port/database"),
        ("DATABASE_URL", "postgresql://user:hunter2@host:5432,other:0/database"),
        ("DATABASE_URL", "postgresql://user:hunter2\udcff@host/database"),
        ("DATABASE_URL", "mysql://user:hunter2@host/database"),
        ("DATABASE_URL", "user:hunter2@host"),
    ],
)
def test_a_bad_value_that_may_hold_a_secret_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """Logs keep what is printed."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(StartRefused, match=f"{variable} is a secret value; allowed: ") as refused:
        Settings.load()
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("redis://host:6379/0", ["redis://host:6379/0"]),
        ("unix:///run/redis.sock?db=1", ["unix:///run/redis.sock?db=1"]),
        (
            "rediss://u:p,w@one:6379, two:6380,[::1]:1/0?ssl_cert_reqs=none",
            [
                "rediss://u:p,w@one:6379/0?ssl_cert_reqs=none",
                "rediss://u:p,w@two:6380/0?ssl_cert_reqs=none",
                "rediss://u:p,w@[::1]:1/0?ssl_cert_reqs=none",
            ],
        ),
    ],
)
def test_a_redis_url_may_name_several_servers(
    monkeypatch: pytest.MonkeyPatch, url: str, servers: list[str]
) -> None:
    """They share everything else of it; a password may have commas."""
    monkeypatch.setenv("REDIS_URL", url)
    assert redis_urls(Settings.load().redis_url.get_secret_value()) == servers


@pytest.mark.parametrize("hosts", ["one:5432,two:5433", "one,two", "[::1]:5432,two", "one", ""])
def test_a_database_url_may_name_several_hosts(monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
    """Each with a port of its own, if any: the driver goes through them."""
    url = f"postgresql://user:p,w@{hosts}/database"
    monkeypatch.setenv("DATABASE_URL", url)
    assert Settings.load().database_url.get_secret_value() == url


@pytest.mark.parametrize("more", ["retry=3", "ssl_ca_certs=x", "colour=red"])
def test_a_parameter_that_a_connection_to_redis_does_not_take_is_refused(more: str) -> None:
    """Before anything connects."""
    with pytest.raises(StartRefused, match="a parameter that such a connection does not take"):
        client_of(f"redis://host:6379?{more}")


def test_secrets_are_not_in_the_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    """URLs and passwords alike."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:hunter2@host/database")
    monkeypatch.setenv("REDIS_URL", "rediss://:hunter2@host")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "hunter2")
    settings = Settings.load()
    assert "hunter2" not in repr(settings) + str(settings.model_dump_json())
    assert "hunter2" in settings.database_url.get_secret_value()


def test_max_future_is_at_most_allowed_lateness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its default gives way, a value of its own is refused."""
    monkeypatch.setenv("ALLOWED_LATENESS", "15m")
    assert Settings.load().max_future_ms == 900_000
    monkeypatch.setenv("MAX_FUTURE", "16m")
    with pytest.raises(StartRefused, match=r"MAX_FUTURE .* at most ALLOWED_LATENESS"):
        Settings.load()


def test_topics_are_different_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker would read what it writes."""
    monkeypatch.setenv("RAW_TOPIC", "events.enriched")
    with pytest.raises(StartRefused, match="different topics, not"):
        Settings.load()


def test_sasl_needs_a_user_and_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are named where one is missing."""
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "processor")
    with pytest.raises(StartRefused, match="KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"):
        Settings.load()
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "hunter2")
    assert Settings.load().kafka_sasl_mechanism == "SCRAM-SHA-512"


def test_a_client_key_needs_its_certificate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Paths are files that exist."""
    key = tmp_path / "key.pem"
    key.touch()
    monkeypatch.setenv("KAFKA_SSL_KEYFILE", str(key))
    with pytest.raises(StartRefused, match="KAFKA_SSL_KEYFILE needs KAFKA_SSL_CERTFILE"):
        Settings.load()
    monkeypatch.setenv("KAFKA_SSL_CERTFILE", str(key))
    assert Settings.load().kafka_ssl_keyfile == key
