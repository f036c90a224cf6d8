"""What KEDA publishes of a ScaledObject and of its Kafka trigger, as a schema: keda.sh/docs, scaling-deployments and apache-kafka."""

from typing import Any

_TEXT = {"type": "string", "minLength": 1}
_COUNT = {"type": "integer", "minimum": 0}
_FLAG = {"enum": ["true", "false"]}
_NUMBER = {"type": "string", "pattern": "^[0-9]+$"}


def _closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": False,
    }


def _either(name: str) -> dict[str, Any]:
    """A value, or the name of a variable of the scaled container that has it; never both."""
    return {"oneOf": [{"required": [name]}, {"required": [f"{name}FromEnv"]}]}


KAFKA: dict[str, Any] = {
    **_closed(
        [],
        bootstrapServers=_TEXT,
        bootstrapServersFromEnv=_TEXT,
        consumerGroup=_TEXT,
        consumerGroupFromEnv=_TEXT,
        topic=_TEXT,
        topicFromEnv=_TEXT,
        lagThreshold=_NUMBER,
        activationLagThreshold=_NUMBER,
        offsetResetPolicy={"enum": ["earliest", "latest"]},
        allowIdleConsumers=_FLAG,
        scaleToZeroOnInvalidOffset=_FLAG,
        excludePersistentLag=_FLAG,
        limitToPartitionsWithLag=_FLAG,
        ensureEvenDistributionOfPartitions=_FLAG,
        partitionLimitation=_TEXT,
        version=_TEXT,
        sasl={
            "enum": ["none", "plaintext", "scram_sha256", "scram_sha512", "oauthbearer", "gssapi"]
        },
        tls={"enum": ["enable", "disable"]},
        unsafeSsl=_FLAG,
    ),
    # With limitToPartitionsWithLag it wants a topic, and refuses these beside it.
    "allOf": [
        *map(_either, ("bootstrapServers", "consumerGroup", "topic")),
        {
            "not": {
                "properties": {
                    "limitToPartitionsWithLag": {"const": "true"},
                    "allowIdleConsumers": {"const": "true"},
                },
                "required": ["limitToPartitionsWithLag", "allowIdleConsumers"],
            }
        },
        {
            "not": {
                "properties": {
                    "limitToPartitionsWithLag": {"const": "true"},
                    "ensureEvenDistributionOfPartitions": {"const": "true"},
                },
                "required": ["limitToPartitionsWithLag", "ensureEvenDistributionOfPartitions"],
            }
        },
    ],
}
_TRIGGER = _closed(
    ["type", "metadata"],
    type={"const": "kafka"},
    name=_TEXT,
    metadata=KAFKA,
    metricType={"enum": ["AverageValue", "Value"]},
    useCachedMetrics={"type": "boolean"},
    authenticationRef=_closed(
        ["name"],
        name=_TEXT,
        kind={"enum": ["TriggerAuthentication", "ClusterTriggerAuthentication"]},
    ),
)
_SPEC = _closed(
    ["scaleTargetRef", "triggers"],
    scaleTargetRef=_closed(
        ["name"], name=_TEXT, apiVersion=_TEXT, kind=_TEXT, envSourceContainerName=_TEXT
    ),
    pollingInterval={"type": "integer", "minimum": 1},
    initialCooldownPeriod=_COUNT,
    cooldownPeriod=_COUNT,
    idleReplicaCount=_COUNT,
    minReplicaCount=_COUNT,
    maxReplicaCount={"type": "integer", "minimum": 1},
    fallback=_closed(
        ["failureThreshold", "replicas"],
        failureThreshold=_COUNT,
        replicas=_COUNT,
        behavior={
            "enum": [
                "static",
                "currentReplicas",
                "currentReplicasIfHigher",
                "currentReplicasIfLower",
                "scalingModifiers",
            ]
        },
    ),
    advanced=_closed(
        [],
        restoreToOriginalReplicaCount={"type": "boolean"},
        horizontalPodAutoscalerConfig=_closed([], name=_TEXT, behavior={"type": "object"}),
        scalingModifiers=_closed(
            [], formula=_TEXT, target=_TEXT, activationTarget=_TEXT, metricType=_TEXT
        ),
    ),
    triggers={"type": "array", "minItems": 1, "items": _TRIGGER},
)
SCHEMA = _closed(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "keda.sh/v1alpha1"},
    kind={"const": "ScaledObject"},
    metadata=_closed(
        ["name"], name=_TEXT, labels={"type": "object"}, annotations={"type": "object"}
    ),
    spec=_SPEC,
)
"""`behavior` is Kubernetes' own, and checked as that."""
