"""One run: chaos while mails are stored, everything healed, the end awaited, all of it counted."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from django.db import DatabaseError, InterfaceError, connection
from django.db.models import Count

from congressy_mailer.models import Message
from congressy_mailer.models.choices import FINAL
from testbed.processes import ProcessError
from tests.chaos.clocks import APART
from tests.chaos.faults import Course, Fault, deck
from tests.chaos.stage import Stage
from tests.chaos.tally import Tally, measure_waits, take_tally

Say = Callable[[str], None]

#: How long something is left alone after a fault, in seconds, so that mails move in between and the next fault hits
#: somebody at work: a worker takes some seconds to come back to its broker, and a mail server that was away is not
#: tried again for five. While the host's tasks have all processes, nobody else is at work.
_REST = {"broker": 7.0, "mail server": 9.0, "database": 4.0, "host": 15.0}
_REST_OF_A_WORKER = 3.0

#: Faults of the deck that wait for their subject, before all the others have to wait as well.
_LONGEST_WAITING = 12


class StuckError(RuntimeError):
    """Some mails do not reach their end."""


@dataclass
class _Ongoing:
    """A fault that is not healed yet."""

    subject: str
    course: Course
    #: When it goes on.
    at: float


@dataclass
class Run:
    """A run on a stage that has been set."""

    stage: Stage
    #: How long faults go on, at the most; they end earlier when no mail is left.
    chaos_seconds: float
    #: How long the rest may take.
    rest_seconds: float
    say: Say
    #: Between the beginnings of two faults, in seconds.
    pause: tuple[float, float] = (0.5, 1.6)
    faults: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._ongoing: list[_Ongoing] = []
        self._rests_until: dict[str, float] = {}

    def play(self) -> Tally:
        """Go through all of it.

        Raises:
            StuckError: mails did not reach their end in time.
        """
        stage = self.stage
        self._began = time.monotonic()
        stage.start_feeder()
        self._break_things()
        self._heal()
        stage.end_neighbour()
        self._await_the_end()
        stage.stop_workers()
        return self.count()

    def count(self) -> Tally:
        """Compare everything, once nothing moves any more."""
        stage = self.stage
        tally = take_tally(
            stage.seed, stage.messages, stage.config.on_crash, stage.mail_server.journal, stage.feeder_journal,
            stage.kills, stage.neighbour_journal,
        )  # fmt: skip
        self._tally_clocks(tally)
        measure_waits(tally, stage.feeder_journal, stage.config.statements)
        return tally

    def _tally_clocks(self, tally: Tally) -> None:
        tally.no_clocks = self.stage.config.why_no_clocks()
        for ahead, name in ((APART, "an hour ahead"), (-APART, "an hour behind")):
            starts = sum(worker.clocks[ahead] for worker in self.stage.workers)
            warnings = sum(worker.warnings_of(ahead) for worker in self.stage.workers)
            if starts:
                tally.clocks.append(f"{starts} starts {name}, told {warnings} times")
            if starts and not warnings:
                tally.clocks_untold.append(name)

    def _break_things(self) -> None:
        rng = random.Random(f"faults {self.stage.seed}")
        faults = deck(self.stage, rng)
        until = self._began + self.chaos_seconds
        waiting: list[Fault] = []
        at = self._began + rng.uniform(*self.pause)
        while time.monotonic() < until and not self._all_accepted():
            self._advance()
            if time.monotonic() >= at:
                self._begin(self._next_possible(waiting, faults))
                at = time.monotonic() + rng.uniform(*self.pause)
            time.sleep(0.02)

    def _next_possible(self, waiting: list[Fault], faults: Iterator[Fault]) -> Fault:
        """The first fault of the deck whose subject is whole and has rested."""
        busy = {one.subject for one in self._ongoing}
        while True:
            for fault in waiting:
                if fault.subject not in busy and time.monotonic() >= self._rests_until.get(fault.subject, 0.0):
                    waiting.remove(fault)
                    return fault
            if len(waiting) > _LONGEST_WAITING:
                self._advance()
                busy = {one.subject for one in self._ongoing}
                time.sleep(0.02)
            else:
                waiting.append(next(faults))

    def _begin(self, fault: Fault) -> None:
        self.faults[fault.name] += 1
        counts = self.stage.counts()
        self._say(f"{counts['committed']} stored, {counts['accepted']} accepted · {fault.name} ({fault.subject})")
        self._ongoing.append(_Ongoing(fault.subject, fault.begin(), 0.0))
        self._advance()

    def _advance(self) -> None:
        self.stage.restart_ended_workers({one.subject for one in self._ongoing})
        for one in list(self._ongoing):
            if time.monotonic() < one.at:
                continue
            try:
                one.at = time.monotonic() + next(one.course)
            except StopIteration:
                self._ongoing.remove(one)
                self._rests_until[one.subject] = time.monotonic() + _REST.get(one.subject, _REST_OF_A_WORKER)

    def _heal(self) -> None:
        self._say("everything is healed")
        while self._ongoing:
            self._advance()
            time.sleep(0.02)
        self.stage.mail_server.come_near()

    def _await_the_end(self) -> None:
        stage = self.stage
        deadline = time.monotonic() + self.rest_seconds
        for _ in _every(2.0):
            feeder, neighbour = stage.feeder, stage.neighbour
            assert feeder is not None
            assert neighbour is not None
            states = _states()
            final = sum(states[state] for state in FINAL)
            open_states = {state: count for state, count in states.items() if state not in FINAL}
            if not feeder.running and final >= stage.messages and not open_states and not neighbour.running:
                return
            counts = stage.counts()
            self._say(f"{counts['committed']} stored, {counts['accepted']} accepted · {final} final, {open_states}")
            stage.restart_ended_workers(set())
            if not feeder.running and counts["committed"] < stage.messages:
                raise ProcessError(f"The feeder has ended before it was done:\n{feeder.output()[-2000:]}")
            if time.monotonic() > deadline:
                raise StuckError(
                    f"After {self.rest_seconds:.0f} s without faults mails are still {open_states}, and the project "
                    f"beside it {'still has some' if neighbour.running else 'has none'}."
                )

    def _all_accepted(self) -> bool:
        feeder = self.stage.feeder
        return feeder is not None and not feeder.running and not set(_states()) - FINAL

    def _say(self, what: str) -> None:
        self.say(f"{time.monotonic() - self._began:5.1f} s  {what}")


def _states() -> Counter[str]:
    """How many messages are in each state; one that nothing is known of while the database is away."""
    try:
        return Counter(dict(Message.objects.values_list("state").annotate(Count("id"))))
    except (DatabaseError, InterfaceError):
        connection.close()
        return Counter({"unknown": 1})


def _every(seconds: float) -> Iterator[None]:
    while True:
        yield
        time.sleep(seconds)
