"""The rules of a lane's life: what follows what, and what no order of moves can bring about."""

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from processor.pure import lane as rules
from processor.pure.lane import Bounds, IllegalMoveError, Lane

WORKERS = st.integers(0, 2)
ENDED = ("fenced", "closed")


def ready(offset: int = 5) -> Lane:
    """A lane that waits for records from `offset` on."""
    return rules.position(rules.begin(Lane(), owned=True), Bounds(offset, 0, 100))


def in_flight(offset: int = 5, upto: int = 8) -> Lane:
    """A lane with a batch being processed."""
    return rules.take(ready(offset), offset, upto)


@pytest.mark.parametrize(
    ("bounds", "phase", "offset"),
    [
        (Bounds(None, 3, 9), "ready", 3),
        (Bounds(3, 3, 9), "ready", 3),
        (Bounds(9, 3, 9), "ready", 9),
        (Bounds(2, 3, 9), "stopped", 2),
        (Bounds(10, 3, 9), "stopped", 10),
        (Bounds(None, 0, 0), "ready", 0),
    ],
)
def test_a_lane_begins_at_the_committed_offset_or_stops(
    bounds: Bounds, phase: str, offset: int
) -> None:
    """Inside the log (both ends included) it is ready there, without an offset at the first; outside it stops."""
    lane = rules.position(rules.begin(Lane(), owned=True), bounds)
    assert (lane.phase, lane.offset) == (phase, offset)


def test_a_lane_of_a_revoked_partition_closes_instead_of_beginning() -> None:
    """Its producer would fence the rightful owner."""
    assert rules.begin(Lane(), owned=False).phase == "closed"


@pytest.mark.parametrize(("first", "upto"), [(4, 8), (5, 5), (6, 6)])
def test_a_batch_must_follow_what_is_committed(first: int, upto: int) -> None:
    """Neither records from before, nor nothing."""
    with pytest.raises(IllegalMoveError, match="does not follow"):
        rules.take(ready(5), first, upto)


def test_offsets_that_are_no_records_may_lie_between_batches() -> None:
    """Transaction markers and compacted records have offsets too."""
    assert rules.take(ready(5), 7, 8).upto == 8


def test_an_outcome_that_ends_elsewhere_than_its_batch_is_a_defect() -> None:
    """Committing it would skip or repeat records."""
    with pytest.raises(IllegalMoveError, match="ends at 7"):
        rules.publish(in_flight(5, 8), 7)


def test_nothing_is_published_that_was_not_taken() -> None:
    """Only a batch in flight can be."""
    for lane in (Lane(), ready(), rules.close(ready()), rules.fence(in_flight())):
        with pytest.raises(IllegalMoveError):
            rules.publish(lane, lane.upto)


def test_a_committed_batch_moves_the_lane_on() -> None:
    """The next batch follows it."""
    lane = rules.commit(rules.publish(in_flight(5, 8), 8))
    assert (lane.phase, lane.offset) == ("ready", 8)


def test_a_closing_lane_finishes_its_batch_and_takes_no_other() -> None:
    """A drain loses nothing that is in flight."""
    lane = rules.close(in_flight(5, 8))
    assert not rules.wants_records(lane)
    lane = rules.commit(rules.publish(lane, 8))
    assert (lane.phase, lane.offset) == ("closed", 8)


def test_a_failure_while_closing_ends_the_lane() -> None:
    """What was in flight is redelivered to the next owner."""
    assert rules.fail(rules.close(in_flight())).phase == "closed"
    assert rules.stop(rules.close(in_flight())).phase == "closed"


@pytest.mark.parametrize("ended", [rules.fence(ready()), rules.close(ready())])
def test_an_ended_lane_stays_ended(ended: Lane) -> None:
    """Whatever still arrives for it."""
    bounds = Bounds(5, 0, 100)
    for after in (
        rules.begin(ended, owned=True),
        rules.position(ended, bounds),
        rules.fail(ended),
        rules.stop(ended),
        rules.resume(ended, bounds),
        rules.fence(ended),
        rules.close(ended),
    ):
        assert after == ended


@pytest.mark.parametrize(
    ("bounds", "phase"),
    [
        (Bounds(5, 8, 20), "stopped"),
        (Bounds(8, 8, 20), "waiting"),
        (Bounds(5, 0, 20), "waiting"),
        (Bounds(None, 8, 20), "waiting"),
    ],
)
def test_a_lane_stopped_outside_the_log_resumes_when_its_offset_is_inside(
    bounds: Bounds, phase: str
) -> None:
    """By a reset, or because the log reaches it again."""
    lane = rules.position(rules.begin(Lane(), owned=True), Bounds(5, 8, 20))
    assert rules.resume(lane, bounds).phase == phase


def test_a_lane_stopped_for_another_reason_resumes_only_when_its_offset_was_moved() -> None:
    """To find its offset in the log proves nothing there."""
    lane = rules.stop(in_flight(5, 8))
    assert rules.resume(lane, Bounds(5, 0, 20)).phase == "stopped"
    assert rules.resume(lane, Bounds(8, 0, 20)).phase == "waiting"


def test_a_lane_can_begin_only_once_at_a_time() -> None:
    """A second producer would fence the first."""
    with pytest.raises(IllegalMoveError, match="the lane is ready, not waiting"):
        rules.begin(ready(), owned=True)


@dataclass
class Owner:
    """A worker that believes to have the partition: its lane, and the epoch of its producer."""

    lane: Lane = field(default_factory=Lane)
    epoch: int = 0
    revoked: bool = False


class Lanes(RuleBasedStateMachine):
    """Three workers, one partition: assignments, zombies, failures, a log that is cut off, an operator.

    A worker that lost the partition may learn of it late or never; what it does then must not matter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.owners = [Owner(lane=Lane(phase="closed")) for _ in range(3)]
        self.owners[0] = Owner()
        self.epoch = self.start = 0
        self.end = 20
        self.committed: int | None = None
        self.published: list[int] = []
        self.lost: list[int] = []

    @rule(count=st.integers(1, 5))
    def records_arrive(self, count: int) -> None:
        self.end += count

    @rule(owner=WORKERS)
    def is_assigned(self, owner: int) -> None:
        """A rebalance: the worker's lane of an earlier assignment is dropped."""
        self.learns_of_the_loss(owner)
        self.owners[owner] = Owner()

    @rule(owner=WORKERS)
    def learns_of_the_loss(self, owner: int) -> None:
        """What is in flight may still be finished."""
        found = self.owners[owner]
        found.lane = rules.close(found.lane)
        found.revoked = True

    @rule(owner=WORKERS, steps=st.integers(1, 9))
    def one_works(self, owner: int, steps: int) -> None:
        """What a lane does while nothing disturbs it."""
        for _ in range(steps):
            self._step(self.owners[owner])

    @rule(order=st.permutations(range(3)), steps=st.integers(1, 4))
    def all_work(self, order: list[int], steps: int) -> None:
        """In turn; who was fenced or closed has nothing to do."""
        for owner in order * steps:
            self._step(self.owners[owner])

    @rule(owner=WORKERS)
    def commits_but_hears_of_no_success(self, owner: int) -> None:
        found = self.owners[owner]
        if found.lane.phase == "processing":
            self._transaction(found)
            found.lane = rules.fail(found.lane)

    @rule(owner=WORKERS)
    def fails(self, owner: int) -> None:
        found = self.owners[owner]
        if found.lane.phase in ("starting", "ready", "processing"):
            found.lane = rules.fail(found.lane)

    @rule(count=st.integers(1, 6))
    def the_log_is_cut_off(self, count: int) -> None:
        self.start = min(self.end, self.start + count)

    @precondition(lambda self: self.committed is not None and self.committed < self.start)
    @rule()
    def an_operator_resets_to_the_earliest(self) -> None:
        """Knowingly; it fences whoever has the partition, as the command does."""
        self.epoch += 1
        self.lost += range(self.committed or 0, self.start)
        self.committed = self.start

    @invariant()
    def every_record_below_the_commit_is_published_once_or_knowingly_lost(self) -> None:
        known = sorted(self.published + self.lost)
        # Without a committed offset a group begins at the first record there is.
        first = known[0] if known else self.committed or 0
        assert known == list(range(first, self.committed or 0))

    def _step(self, owner: Owner) -> None:
        match owner.lane.phase:
            case "waiting":
                owner.lane = rules.begin(owner.lane, owned=not owner.revoked)
                assert owner.lane.phase == ("closed" if owner.revoked else "starting")
                self.epoch += owner.lane.phase == "starting"
                owner.epoch = self.epoch
            case "starting":
                owner.lane = rules.position(owner.lane, self._bounds)
            case "ready" if rules.wants_records(owner.lane):
                first, upto = owner.lane.offset, min(owner.lane.offset + 3, self.end)
                if self.start <= first < upto:  # else nothing is fetched, or the fetch is refused
                    owner.lane = rules.take(owner.lane, first, upto)
            case "processing":
                self._publish(owner)
            case "stopped":
                owner.lane = rules.resume(owner.lane, self._bounds)
            case ended:
                assert ended in ENDED

    def _publish(self, owner: Owner) -> None:
        self._transaction(owner)
        owner.lane = (rules.commit if owner.epoch == self.epoch else rules.fence)(owner.lane)

    def _transaction(self, owner: Owner) -> None:
        """The broker refuses it from all but the newest producer."""
        owner.lane = rules.publish(owner.lane, owner.lane.upto)
        if owner.epoch == self.epoch:
            self.published += range(owner.lane.offset, owner.lane.upto)
            self.committed = owner.lane.upto

    @property
    def _bounds(self) -> Bounds:
        """What the cluster answers now."""
        return Bounds(self.committed, self.start, self.end)


TestLanes = Lanes.TestCase
TestLanes.settings = settings(
    max_examples=250,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # time says nothing on a shared machine
)
