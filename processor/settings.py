"""What the environment sets: one frozen object, read once at the start.

An empty variable is an unset one.  A bad value is `StartRefused` with one line that names the
variable, its value (unless it may hold a secret) and what is allowed, which is each field's
`description`.  Durations are milliseconds on this side.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, urlsplit, urlunsplit

from pydantic import (
    BeforeValidator,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from processor.failures import StartRefused

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PORTS = 65_536
_LONGEST_MS = 3_650 * _UNITS_MS["d"]
_HEAVIEST = 1_000_000
_DURATION = "a whole number with ms, s, m, h or d, such as 90s, 15m or 1h, at most 3650d"


def duration_ms(text: str) -> int:
    """Milliseconds of ``500ms``, ``90s``, ``15m``, ``1h``, ``7d``; raises ValueError otherwise."""
    found = re.fullmatch(r"([0-9]{1,12})(ms|s|m|h|d)", text)
    ms = int(found[1]) * _UNITS_MS[found[2]] if found else -1
    if not 0 <= ms <= _LONGEST_MS:
        raise ValueError(_DURATION)
    return ms


def _duration(value: object) -> object:
    return duration_ms(value) if isinstance(value, str) else value


def _digits(text: str) -> str:
    """`text`, which is digits alone: pydantic takes ``1_0`` for ten and ``1.0`` for one."""
    if not re.fullmatch(r"-?[0-9]+", text):
        raise ValueError(text)
    return text


def _host(text: str) -> str:
    """`text`, where it can be looked up; raises ValueError for ``a..b``, as the lookup would in the midst of a driver."""
    text.encode("idna")
    return text


def _servers(text: str) -> str:
    for server in text.split(","):
        found = re.fullmatch(r"\s*(\[[0-9a-fA-F:.]+\]|[^\s:,/]+):([0-9]{1,5})\s*", server)
        if not found or not 0 < int(found[2]) < _PORTS:
            raise ValueError(server)
        _host(found[1])
    return text


def redis_urls(text: str) -> list[str]:
    """The URL of each server that a Redis URL names: after the last @, more than one is separated by commas."""
    parts = urlsplit(text)
    login, at, servers = parts.netloc.rpartition("@")
    if "," not in servers:
        return [text]
    return [
        urlunsplit(parts._replace(netloc=f"{login}{at}{server.strip()}"))
        for server in servers.split(",")
    ]


def _url(schemes: set[str], text: str) -> SplitResult:
    parts = urlsplit(text)
    servers = parts.netloc.rpartition("@")[2].split(",")
    ports = [urlsplit(f"//{server}").port for server in servers]  # raises where one is no port
    # Of a password that is not quoted, or not in its place, some would be shown as an address.
    strange = parts.fragment or "@" in parts.path + parts.query or "://" not in text
    if parts.scheme not in schemes or strange or 0 in ports:
        raise ValueError(text)
    return parts


def _text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _redis_url(value: object) -> object:
    urls = redis_urls(_text(value))
    for url in urls:
        parts = _url({"redis", "rediss", "unix"}, url)
        if parts.scheme != "unix" and not re.fullmatch(r"/?|/[0-9]+", parts.path):
            raise ValueError(parts.path)  # the client would take database 0
        if len(urls) > 1 and not parts.hostname:
            raise ValueError(url)
        _host(parts.hostname or "")
    return value


def _database_url(value: object) -> object:
    _url({"postgres", "postgresql"}, _text(value))
    return value


def _type(text: str) -> str:
    from schemas.names import normalise_event_type  # noqa: PLC0415 - commands without event types load no schemas

    return normalise_event_type(text)


def _types(text: str) -> frozenset[str]:
    types = {_type(one) for one in text.split(",")}
    if "" in types:
        raise ValueError(text)
    return frozenset(types)


def _weights(text: str) -> Mapping[str, float]:
    pairs = [one.rpartition("=") for one in text.split(",")]
    if any("_" in weight for _, _, weight in pairs):  # for Python, 1_0 is ten
        raise ValueError(text)
    weights = {_type(name): float(weight) for name, _, weight in pairs}
    if len(weights) < len(pairs) or "" in weights:
        raise ValueError(text)
    if not all(0 <= weight <= _HEAVIEST for weight in weights.values()):
        raise ValueError(text)
    return weights


def _of_text(parse: Callable[[str], object]) -> BeforeValidator:
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


Servers = Annotated[str, BeforeValidator(_servers)]
Topic = Annotated[str, Field(pattern=r"^(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}\Z")]
DurationMs = Annotated[int, BeforeValidator(_duration)]
WholeNumber = Annotated[int, _of_text(_digits)]
Port = Annotated[WholeNumber, Field(ge=1, lt=_PORTS)]
RedisUrl = Annotated[SecretStr, BeforeValidator(_redis_url)]
DatabaseUrl = Annotated[SecretStr, BeforeValidator(_database_url)]

Types = Annotated[frozenset[str], NoDecode, _of_text(_types)]
Weights = Annotated[Mapping[str, float], NoDecode, _of_text(_weights)]

_TOPIC = "1 to 249 letters, digits, dots, _ and -"
_PORT = "a port from 1 to 65535"
_FILE = "the path of a file that can be read"


class Settings(BaseSettings):
    """Every setting of every command, with its default."""

    model_config = SettingsConfigDict(
        frozen=True,
        case_sensitive=True,
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
        regex_engine="python-re",
    )

    kafka_bootstrap_servers: Servers = Field(
        default="127.0.0.1:9092",
        validation_alias="KAFKA_BOOTSTRAP_SERVERS",
        description="host:port, more than one separated by commas",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT",
        validation_alias="KAFKA_SECURITY_PROTOCOL",
        description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512",
        validation_alias="KAFKA_SASL_MECHANISM",
        description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
    )
    kafka_sasl_username: str | None = Field(
        default=None, validation_alias="KAFKA_SASL_USERNAME", description="a user name"
    )
    kafka_sasl_password: SecretStr | None = Field(
        default=None, validation_alias="KAFKA_SASL_PASSWORD", description="a password"
    )
    kafka_ssl_cafile: FilePath | None = Field(
        default=None, validation_alias="KAFKA_SSL_CAFILE", description=_FILE
    )
    kafka_ssl_certfile: FilePath | None = Field(
        default=None, validation_alias="KAFKA_SSL_CERTFILE", description=_FILE
    )
    kafka_ssl_keyfile: FilePath | None = Field(
        default=None, validation_alias="KAFKA_SSL_KEYFILE", description=_FILE
    )
    redis_url: RedisUrl = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        validation_alias="REDIS_URL",
        description="redis://, rediss:// or unix:// with an address (of a cluster some, separated by commas), and the number of a database if any",
    )
    database_url: DatabaseUrl = Field(
        default=SecretStr("postgresql://postgres@127.0.0.1:5432/postgres"),
        validation_alias="DATABASE_URL",
        description="postgresql://user@host:port/database, more than one host:port separated by commas",
    )
    raw_topic: Topic = Field(default="events.raw", validation_alias="RAW_TOPIC", description=_TOPIC)
    merge_topic: Topic = Field(
        default="leads.merges", validation_alias="MERGE_TOPIC", description=_TOPIC
    )
    enriched_topic: Topic = Field(
        default="events.enriched", validation_alias="ENRICHED_TOPIC", description=_TOPIC
    )
    dead_topic: Topic = Field(
        default="events.dead", validation_alias="DEAD_TOPIC", description=_TOPIC
    )
    engagement_topic: Topic = Field(
        default="leads.engagement", validation_alias="ENGAGEMENT_TOPIC", description=_TOPIC
    )
    consumer_group: str = Field(
        default="processor",
        validation_alias="CONSUMER_GROUP",
        pattern=r"^[^\s\x00-\x1f]{1,200}\Z",
        description="1 to 200 characters without spaces",
    )
    processing_guarantee: Literal["exactly_once", "at_least_once"] = Field(
        default="exactly_once",
        validation_alias="PROCESSING_GUARANTEE",
        description="exactly_once or at_least_once",
    )
    filter_order: Literal["velocity,metadata", "metadata,velocity"] = Field(
        default="velocity,metadata",
        validation_alias="FILTER_ORDER",
        description="velocity,metadata or metadata,velocity",
    )
    allowed_lateness_ms: DurationMs = Field(
        default=_UNITS_MS["h"], validation_alias="ALLOWED_LATENESS", description=_DURATION
    )
    max_future_ms: DurationMs = Field(
        default_factory=lambda data: min(_UNITS_MS["h"], data["allowed_lateness_ms"]),
        validation_alias="MAX_FUTURE",
        description=_DURATION,
    )
    engagement_weights: Weights = Field(
        default={"Page View": 1.0, "Email Open": 1.0, "Form Submit": 10.0},
        validation_alias="ENGAGEMENT_WEIGHTS",
        description="TYPE=WEIGHT, more than one separated by commas, each type once, weights from 0 to 1000000",
    )
    surge_types: Types = Field(
        default=frozenset({"Page View", "Form Submit"}),
        validation_alias="SURGE_TYPES",
        description="event types separated by commas",
    )
    surge_threshold: WholeNumber = Field(
        default=10,
        validation_alias="SURGE_THRESHOLD",
        ge=2,
        le=100,
        description="a whole number from 2 to 100",
    )
    surge_window_ms: DurationMs = Field(
        default=_UNITS_MS["h"], validation_alias="SURGE_WINDOW", gt=0, description=_DURATION
    )
    api_host: Annotated[str, BeforeValidator(_host)] = Field(
        default="127.0.0.1",
        validation_alias="API_HOST",
        pattern=r"^\S+\Z",
        description="a host or address",
    )
    api_port: Port = Field(default=8080, validation_alias="API_PORT", description=_PORT)
    metrics_port: Port | None = Field(
        default=None, validation_alias="METRICS_PORT", description=_PORT
    )
    log_format: Literal["console", "json"] = Field(
        default="console", validation_alias="LOG_FORMAT", description="console or json"
    )

    @classmethod
    def load(cls) -> Self:
        """The settings of the environment; raises `StartRefused`."""
        try:
            return cls()
        except ValidationError as error:
            raise StartRefused(_sentence(cls, error)) from None

    @field_validator("*", mode="before")
    @classmethod
    def _utf8(cls, value: object) -> object:
        """Other bytes come as lone surrogates, which drivers cannot send."""
        if isinstance(value, str):
            value.encode()
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.max_future_ms > self.allowed_lateness_ms:
            raise ValueError(
                f"MAX_FUTURE ({self.max_future_ms} ms) must be at most ALLOWED_LATENESS"
                f" ({self.allowed_lateness_ms} ms)"
            )
        inputs = [self.raw_topic, self.merge_topic]
        names = [*inputs, self.enriched_topic, self.dead_topic, self.engagement_topic]
        if len(set(names)) < len(names):
            raise ValueError(
                "RAW_TOPIC, MERGE_TOPIC, ENRICHED_TOPIC, DEAD_TOPIC and ENGAGEMENT_TOPIC must be"
                f" different topics, not {', '.join(names)}"
            )
        return self

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        sasl = self.kafka_security_protocol.startswith("SASL_")
        if sasl and not (self.kafka_sasl_username and self.kafka_sasl_password):
            raise ValueError(
                f"KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol} needs"
                " KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
            )
        if self.kafka_ssl_keyfile and not self.kafka_ssl_certfile:
            raise ValueError("KAFKA_SSL_KEYFILE needs KAFKA_SSL_CERTFILE")
        return self


def _sentence(settings: type[Settings], error: ValidationError) -> str:
    """One line about the first fault."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return str(first["msg"]).removeprefix("Value error, ")
    variable = str(first["loc"][0])
    fields = settings.model_fields.values()
    field = next(f for f in fields if f.validation_alias == variable)
    secret = "SecretStr" in str(field.annotation)
    value = "a secret value" if secret else repr(first["input"])
    return f"{variable} is {value}; allowed: {field.description}"
