"""Any sequence of events, clicks, commands and syncs leads to what happened, in whatever order it is heard of.

The model is a set of reasons that changes at the moment when something happens. Ours hears of events later, some of
them twice, and SparkPost's own list has its entry at once, by SparkPost's rules.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from django.utils import timezone

from congressy_mailer import send_mail, suppressions
from congressy_mailer.models import Message
from congressy_mailer.sparkpost.events import parse_events
from congressy_mailer.suppressions import suppress, unsuppress
from congressy_mailer.suppressions.sync import sync
from congressy_mailer.tracking.recording import track
from congressy_mailer.unsubscribe import preferences
from tests.support.fuzzing import examples
from tests.support.scripted_https import ScriptedHttps
from tests.support.scripted_suppression_list import SparkPostList
from tests.support.sparkpost_events import event

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.fuzz, pytest.mark.usefixtures("published")]

ANA = "ana@example.com"
TICKETS, NEWS = ("transactional", ""), ("non_transactional", "")
LISTS = ("a", "b.x")
Reason = tuple[str, str, str]


class World:
    """What happens, in a time of its own, to one address."""

    def __init__(self, theirs: SparkPostList, draw: random.Random) -> None:
        self.theirs = theirs
        self.draw = draw
        self.now = datetime.now().astimezone() - timedelta(days=5)
        #: The model: scope, list and source of each reason.
        self.reasons: set[Reason] = set()
        self.untold: list[dict[str, Any]] = []
        self.mails = {list_id: self._mail(list_id) for list_id in ("", *LISTS)}
        self.ticket = self._mail(None)
        self.log: list[str] = []
        #: By list: until when unsubscriptions were taken back.
        self.returned: dict[str, datetime] = {}
        #: Unsubscriptions of which a message's status told when the address was taken back.
        self.heard: set[tuple[Any, datetime]] = set()

    def _mail(self, list_id: str | None) -> Message:
        message = send_mail("x", "x", to=ANA, transactional=list_id is None, list_id=list_id or "")
        assert isinstance(message, Message)
        return message

    def step(self) -> None:
        """Something happens, or is heard of."""
        self.now += timedelta(minutes=self.draw.randrange(12, 40))
        happening = self.draw.choice(STEPS)
        self.log.append(happening.__name__)
        happening(self)

    def happen(self, type: str, message: Message, keys: Iterator[Any] | list[Any], source: str, **fields: Any) -> None:
        """An event: true at once, told later."""
        self.reasons |= {(*key, source) for key in keys}
        stamp = str(self.now.timestamp())
        transactional = "1" if message.transactional else "0"
        self.untold.append(event(type, message, timestamp=stamp, transactional=transactional, **fields))

    def lists_at_sparkpost(self, types: list[str], source: str) -> None:
        """SparkPost's own list has one entry for each type, a minute later."""
        for type in types:
            self.theirs.add(ANA, type, source=source, updated=self.now + timedelta(seconds=self.draw.randrange(60)))

    def note_return(self, *lists: str) -> None:
        """From now on, older unsubscriptions of these mails are over; those that are known already stay as they are."""
        for list_id in lists:
            self.returned[list_id] = self.now
            known = self.mails[list_id].statuses.exclude(unsubscribed_at=None)
            self.heard |= set(known.values_list("message_id", "unsubscribed_at"))

    def tell(self) -> None:
        """Some of the events come, in any order, and perhaps again."""
        if self.untold:
            some = self.draw.sample(self.untold, self.draw.randrange(1, len(self.untold) + 1))
            track(parse_events(some, self.now))
            if self.draw.random() < 0.7:
                self.untold = [one for one in self.untold if one not in some]

    def assert_returns_stand(self) -> None:
        """What left a recipient unsubscribed is later than the last return to that mail."""
        for list_id, at in self.returned.items():
            for status in self.mails[list_id].statuses.exclude(unsubscribed_at=None):
                heard_before = (self.mails[list_id].pk, status.unsubscribed_at) in self.heard
                assert heard_before or status.unsubscribed_at > at, (list_id, self.log)

    def settle(self) -> None:
        """Everything is heard of, and both lists have come together."""
        track(parse_events(self.untold, self.now))
        for _ in range(3):
            self.now += timedelta(hours=3)
            while not sync(full=True).complete:
                pass


def bounces(world: World) -> None:
    world.lists_at_sparkpost(["transactional", "non_transactional"], "Bounce Rule")
    world.happen(
        "bounce", world.draw.choice([*world.mails.values(), world.ticket]), [TICKETS, NEWS], "bounce", bounce_class="10"
    )


def is_not_tried(world: World) -> None:
    reason = world.draw.choice(
        ["suppressed due to customer policy (Unsubscribe Rule)", "[internal] Campaign cancelled"]
    )
    world.happen("bounce", world.mails["a"], [], "", bounce_class="25", raw_reason=f"554 5.7.1 {reason}")


def answers(world: World) -> None:
    world.happen("out_of_band", world.mails["a"], [], "", bounce_class=world.draw.choice(["60", "80", "100"]))


def complains(world: World) -> None:
    world.lists_at_sparkpost(["non_transactional"], "Spam Complaint")
    world.happen("spam_complaint", world.draw.choice([*world.mails.values()]), [NEWS], "complaint")


def leaves_at_sparkpost(world: World) -> None:
    list_id = world.draw.choice(["", *LISTS])
    world.lists_at_sparkpost(["non_transactional"], "List Unsubscribe")
    world.happen("list_unsubscribe", world.mails[list_id], [("list", list_id) if list_id else NEWS], "unsubscribe")


def leaves_by_an_answer(world: World) -> None:
    list_id = world.draw.choice(["", *LISTS])
    world.lists_at_sparkpost(["transactional", "non_transactional"], "Bounce Rule")
    key = ("list", list_id) if list_id else NEWS
    world.happen("out_of_band", world.mails[list_id], [key], "unsubscribe", bounce_class="90")


def leaves_here(world: World) -> None:
    list_id = world.draw.choice(["", *LISTS])
    world.reasons.add((*(("list", list_id) if list_id else NEWS), "unsubscribe"))
    preferences.unsubscribe(ANA, list_id, "x")


def stays(world: World) -> None:
    list_id = world.draw.choice(["", *LISTS])
    world.reasons -= {(*NEWS, "unsubscribe"), ("list", list_id, "unsubscribe")}
    preferences.resubscribe(ANA, list_id)
    world.note_return("", list_id)


def is_put_there(world: World) -> None:
    scope, list_id = world.draw.choice([(None, "a"), ("transactional", ""), ("non_transactional", "")])
    world.reasons.add((scope or "list", list_id, "manual"))
    suppress(ANA, scope=scope, list_id=list_id)


def is_taken_off(world: World) -> None:
    scope, list_id = world.draw.choice(
        [(None, ""), (None, "a"), (None, "b.x"), ("transactional", ""), ("non_transactional", "")]
    )
    everything = scope is None and not list_id
    wanted = (scope or "list", list_id)
    world.reasons = {one for one in world.reasons if one[2] == "compliance" or not (everything or one[:2] == wanted)}
    unsuppress(ANA, scope=scope, list_id=list_id)
    if scope != "transactional":
        world.note_return(*(["", *LISTS] if everything else [list_id]))


def is_put_there_at_sparkpost(world: World) -> None:
    source, name = world.draw.choice([("sparkpost", "Manually Added"), ("compliance", "Compliance")])
    type, list_id = world.draw.choice([TICKETS, NEWS, ("non_transactional", "b.x")])
    if world.theirs.entries.get((ANA, type, list_id), {}).get("source") == "Compliance":
        return
    world.reasons.add(("list" if list_id else type, list_id, source))
    world.theirs.add(ANA, type, list_id, source=name, description="by hand")
    sync()


def lists_come_together(world: World) -> None:
    sync(full=world.draw.random() < 0.3)


def some_is_told(world: World) -> None:
    world.tell()


STEPS: list[Callable[[World], None]] = [
    bounces, is_not_tried, answers, complains, leaves_at_sparkpost, leaves_by_an_answer, leaves_here, stays,
    is_put_there, is_taken_off, is_put_there_at_sparkpost, *[lists_come_together] * 3, *[some_is_told] * 4,
]  # fmt: skip


@pytest.mark.parametrize("seed", range(examples(10)))
def test_what_is_on_both_lists_is_what_happened(seed: int, sparkpost_api: ScriptedHttps, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "LISTS": dict.fromkeys(LISTS, "List")}
    theirs = sparkpost_api.script = SparkPostList()
    world = World(theirs, random.Random(seed))
    with mock.patch.object(timezone, "now", side_effect=lambda: world.now):
        for _ in range(world.draw.randrange(5, 40)):
            world.step()
        world.settle()
        ours = set(suppressions.active().values_list("scope", "list_id"))
        at_sparkpost = {("list" if list_id else type, list_id) for _, type, list_id in theirs.entries}
        assert ours == {reason[:2] for reason in world.reasons}, world.log
        assert at_sparkpost == ours, world.log
        # Nobody is shown as one who left by an event from before the last return.
        world.assert_returns_stand()
        # Nothing is left to be told.
        assert sync().deleted == 0
        assert not suppressions.active().filter(synced_at=None).exists()
