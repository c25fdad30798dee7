"""What became of every mail: what was committed, what the outbox says, and what the mail server has accepted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from congressy_mailer.mime.addresses import bare_address
from congressy_mailer.models import Message, State
from congressy_mailer.models.choices import FINAL
from tests.chaos.journal import JournalReader
from tests.chaos.mails import make_mail
from tests.chaos.stage import Kill

#: Seconds. A mail may be repeated that was accepted so long before something was killed.
WINDOW = 0.1
# What a process had handed to the system when it died reaches the server a little later.
_ON_ITS_WAY = 0.1

Pair = tuple[str, str]


class Copy(NamedTuple):
    """One copy of a mail, for one recipient."""

    #: When the server took it, in seconds since the epoch.
    at: float
    #: When its content had come. The server may think it over; whoever sent it and dies meanwhile never knows.
    received_at: float


@dataclass
class Tally:
    """The result of a run, counted in mails per recipient."""

    on_crash: str
    kills: list[Kill]
    #: Messages of the outbox by state.
    states: Counter[str] = field(default_factory=Counter)
    #: Why messages failed or are held.
    reasons: Counter[str] = field(default_factory=Counter)
    #: Committed, and neither accepted nor held for a person.
    lost: list[str] = field(default_factory=list)
    #: Rolled back, or never asked for, and there all the same.
    never_committed: list[str] = field(default_factory=list)
    #: Set aside for a person.
    held: list[str] = field(default_factory=list)
    #: In no final state.
    unfinished: list[str] = field(default_factory=list)
    #: Copies too many.
    duplicated: int = 0
    #: Those of them that no kill explains.
    unexplained: list[str] = field(default_factory=list)
    #: Copies too many by the kill that explains them.
    repeated: Counter[str] = field(default_factory=Counter)
    #: As many copies too many as there may be: mails accepted just before a kill.
    allowed: int = 0
    #: Longest time between the acceptance of a repeated mail and the kill, in seconds.
    window: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether everything is as it must be."""
        wrong = self.lost or self.never_committed or self.unfinished or self.unexplained
        return not wrong and self.duplicated <= (self.allowed if self.on_crash == "resend" else 0)


def take_tally(seed: int, messages: int, on_crash: str, mail_journal: Path, kills: Sequence[Kill]) -> Tally:
    """Compare what was fed with the outbox and with the mail server's journal."""
    accepted: dict[Pair, list[Copy]] = defaultdict(list)
    all_kills = list(kills)
    for entry in JournalReader(mail_journal).new_entries():
        if entry.what == "accepted":
            _, message_id, recipients, received_at = entry.details
            for recipient in recipients.split(","):
                accepted[message_id, recipient].append(Copy(entry.at, float(received_at)))
        elif entry.what == "died":
            all_kills.append(Kill(f"mail server {entry.details[0]}", entry.at, entry.at))
    tally = Tally(on_crash, sorted(all_kills, key=lambda kill: kill.begun))
    _compare(tally, seed, messages, accepted)
    _explain(tally, accepted)
    return tally


def _compare(tally: Tally, seed: int, messages: int, accepted: dict[Pair, list[Copy]]) -> None:
    rows: dict[str, Message] = {}
    for stored in Message.objects.all():
        # Every mail has a first recipient of its own; a second row for the same is one that nobody asked for.
        rows[str(stored.pk) if stored.to[0] in rows else stored.to[0]] = stored
    expected: set[Pair] = set()
    for number in range(messages):
        mail = make_mail(seed, number)
        message = rows.pop(mail.recipients[0], None)
        if message is None:
            tally.lost.append(f"{mail.key}: committed, and not in the outbox")
            continue
        state = State(message.state)
        tally.states[state.value] += 1
        if state in (State.FAILED, State.HELD):
            tally.reasons[f"{state.value}: {message.reason}"] += 1
        if state is State.HELD:
            tally.held.append(f"{mail.key}: {message.id} to {', '.join(message.remaining or message.recipients)}")
        if state not in FINAL:
            tally.unfinished.append(f"{mail.key}: {state.value}")
        pairs = {(message.message_id, recipient) for recipient in mail.recipients}
        expected |= pairs
        if {bare_address(recipient) for recipient in message.recipients} != set(mail.recipients):
            tally.never_committed.append(f"{mail.key}: its recipients are {message.recipients}")
        missing = sorted(recipient for message_id, recipient in pairs - accepted.keys())
        if missing and not (state is State.HELD and tally.on_crash == "hold"):
            tally.lost.append(f"{mail.key}: {state.value}, {', '.join(missing)}; {message.reason or message.reply}")
    tally.never_committed += [f"in the outbox: {message.recipients}" for message in rows.values()]
    tally.never_committed += [f"sent: {message_id} to {to}" for message_id, to in sorted(accepted.keys() - expected)]


def _explain(tally: Tally, accepted: dict[Pair, list[Copy]]) -> None:
    """Find the kill behind each copy too many."""
    copies = [copy for found in accepted.values() for copy in found]
    for kill in tally.kills:
        tally.allowed += sum(_repeats(kill, copy) for copy in copies)
    for (message_id, recipient), found in accepted.items():
        found.sort()
        for copy, again in zip(found, found[1:], strict=False):
            tally.duplicated += 1
            culprits = [kill for kill in tally.kills if _repeats(kill, copy)]
            if not culprits:
                tally.unexplained.append(_describe(tally, message_id, recipient, copy.at, again.at))
                continue
            nearest = min(culprits, key=lambda kill: abs(kill.begun - copy.at))
            tally.repeated[nearest.what] += 1
            tally.window = max(tally.window, nearest.begun - copy.at)


def _repeats(kill: Kill, copy: Copy) -> bool:
    """Whether whoever was killed had sent all of the content, and could not write down yet that it was taken."""
    return copy.received_at - _ON_ITS_WAY <= kill.ended and kill.begun <= copy.at + WINDOW


def _describe(tally: Tally, message_id: str, recipient: str, at: float, again: float) -> str:
    nearest = min(tally.kills, key=lambda kill: abs(kill.begun - at), default=None)
    kill = f"{nearest.what} at {nearest.begun:.3f}" if nearest else "none"
    return f"{message_id} to {recipient}: accepted at {at:.3f} and {again:.3f}; nearest kill: {kill}"
