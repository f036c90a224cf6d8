"""The one place that knows how to start real servers: Apache Kafka, Valkey and Postgres, on loopback, without Docker.

`Stack` starts what the environment does not name already.  Everything comes from packages of the `embedded` extra; nothing is
installed on the machine, nothing outlives the owner of the stack, and the data directory holds all there is.
"""

from processor.embedded.stack import Stack, stack

__all__ = ["Stack", "stack"]
