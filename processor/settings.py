"""What the environment sets: one frozen object, read once at the start.

An empty variable is an unset one.  A bad value is `StartRefused` with one line that names the
variable, its value (unless it may hold a secret) and what is allowed, which is each field's
`description`.
"""

from typing import Literal, Self

from pydantic import (
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from processor.failures import StartRefused
from processor.setting_values import (
    DURATION,
    FILE,
    PORT,
    TOPIC,
    UNITS_MS,
    DatabaseUrl,
    DurationMs,
    Host,
    Port,
    RedisUrl,
    Servers,
    Topic,
    Types,
    Weights,
    WholeNumber,
)


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
        default=None, validation_alias="KAFKA_SSL_CAFILE", description=FILE
    )
    kafka_ssl_certfile: FilePath | None = Field(
        default=None, validation_alias="KAFKA_SSL_CERTFILE", description=FILE
    )
    kafka_ssl_keyfile: FilePath | None = Field(
        default=None, validation_alias="KAFKA_SSL_KEYFILE", description=FILE
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
    raw_topic: Topic = Field(default="events.raw", validation_alias="RAW_TOPIC", description=TOPIC)
    merge_topic: Topic = Field(
        default="leads.merges", validation_alias="MERGE_TOPIC", description=TOPIC
    )
    enriched_topic: Topic = Field(
        default="events.enriched", validation_alias="ENRICHED_TOPIC", description=TOPIC
    )
    dead_topic: Topic = Field(
        default="events.dead", validation_alias="DEAD_TOPIC", description=TOPIC
    )
    engagement_topic: Topic = Field(
        default="leads.engagement", validation_alias="ENGAGEMENT_TOPIC", description=TOPIC
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
        default=UNITS_MS["h"], validation_alias="ALLOWED_LATENESS", description=DURATION
    )
    max_future_ms: DurationMs = Field(
        default_factory=lambda data: min(UNITS_MS["h"], data["allowed_lateness_ms"]),
        validation_alias="MAX_FUTURE",
        description=DURATION,
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
        default=UNITS_MS["h"], validation_alias="SURGE_WINDOW", gt=0, description=DURATION
    )
    api_host: Host = Field(
        default="127.0.0.1",
        validation_alias="API_HOST",
        pattern=r"^\S+\Z",
        description="a host or address",
    )
    api_port: Port = Field(default=8080, validation_alias="API_PORT", description=PORT)
    metrics_port: Port | None = Field(
        default=None, validation_alias="METRICS_PORT", description=PORT
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
