"""A broker: logs, offsets of the group, transactions that are fenced by their id alone, and who has which partition."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aiokafka.errors import CommitFailedError, InvalidTxnState, ProducerFenced

from processor.io.kafka import Partition
from processor.pure.types import Message, Record


class Member(Protocol):
    """A consumer of the group."""

    def changes(self) -> None:
        """It will hear that partitions are given anew."""


@dataclass
class Transactions:
    """What the coordinator knows of one transactional id."""

    epoch: int = 0
    messages: list[Message] = field(default_factory=list)
    offsets: dict[Partition, int] = field(default_factory=dict)


class Broker:
    """Every method is one step."""

    def __init__(self, logs: Mapping[Partition, Sequence[Record]]) -> None:
        self.logs = logs
        self.committed: dict[Partition, int] = {}
        self.published: list[Message] = []
        """What a reader of committed messages has seen."""
        self.generation = 0
        self.members: list[Member] = []
        self._transactions: dict[str, Transactions] = {}
        self._reached: dict[Partition, int] = {}
        self._turn = 0

    @property
    def done(self) -> bool:
        """Everything there is was committed; outside of transactions a late call may set an offset back again."""
        return all(self._reached.get(p, 0) == len(log) for p, log in self.logs.items())

    def init(self, transactional_id: str) -> int:
        """The epoch of a new producer: all earlier ones are fenced, what they have open is aborted."""
        known = self._transactions.get(transactional_id, Transactions())
        self._transactions[transactional_id] = Transactions(known.epoch + 1)
        return known.epoch + 1

    def send(self, transactional_id: str, epoch: int, messages: Sequence[Message]) -> None:
        """Messages nobody sees before the transaction's end."""
        self._of(transactional_id, epoch).messages += messages

    def place(self, transactional_id: str, epoch: int, offsets: Mapping[Partition, int]) -> None:
        """Offsets that hold from the transaction's end on; taken from whoever has the epoch, member of the group or not."""
        self._of(transactional_id, epoch).offsets.update(offsets)

    def end(self, transactional_id: str, epoch: int, *, commit: bool) -> None:
        """Whatever is open: the protocol does not say which transaction is meant."""
        transaction = self._of(transactional_id, epoch)
        if not transaction.messages and not transaction.offsets:
            raise InvalidTxnState
        if commit:
            self.published += transaction.messages
            self._commit(transaction.offsets)
        self._transactions[transactional_id] = Transactions(epoch)

    def expire(self, n: int) -> str | None:
        """An open transaction has taken too long: it is aborted, its producer fenced."""
        found = sorted(i for i, t in self._transactions.items() if t.messages or t.offsets)
        if not found:
            return None
        self.init(found[n % len(found)])
        return f"the transaction of {found[n % len(found)]} takes too long and is aborted"

    def publish(self, messages: Sequence[Message]) -> None:
        """Outside a transaction."""
        self.published += messages

    def commit(self, offsets: Mapping[Partition, int], generation: int) -> None:
        """As a member of the group."""
        if generation != self.generation:
            raise CommitFailedError
        self._commit(offsets)

    def join(self, member: Member) -> None:
        """Everything is given anew, at once: who has lost something hears of it later."""
        self.members.append(member)
        self._rebalance()

    def drop(self, member: Member) -> None:
        """It has left, or was not heard of for too long."""
        if member in self.members:
            self.members.remove(member)
            self._rebalance()

    def share(self, member: Member) -> Collection[Partition]:
        """What a member has now."""
        place, several = self.members.index(member), len(self.members)
        return {p for n, p in enumerate(sorted(self.logs)) if (n + self._turn) % several == place}

    def rebalance(self) -> str:
        """Everybody is given what another had."""
        self._turn += 1
        self._rebalance()
        return "partitions are given to others"

    def _commit(self, offsets: Mapping[Partition, int]) -> None:
        self.committed |= offsets
        for partition, offset in offsets.items():
            self._reached[partition] = max(offset, self._reached.get(partition, 0))

    def _rebalance(self) -> None:
        self.generation += 1
        for member in self.members:
            member.changes()

    def _of(self, transactional_id: str, epoch: int) -> Transactions:
        transaction = self._transactions[transactional_id]
        if transaction.epoch != epoch:
            raise ProducerFenced
        return transaction
