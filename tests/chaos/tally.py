"""What became of every mail: what was committed, what the outbox says, and what the mail server has accepted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from django.db import connection

from congressy_mailer.mime.addresses import bare_address
from congressy_mailer.models import Attachment, Message, State
from congressy_mailer.models.choices import FINAL
from tests.chaos.journal import JournalReader
from tests.chaos.mails import NEIGHBOURS, file_of, make_mail
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
    #: The server's number of it.
    number: str


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
    #: Mails of which there are copies although whoever sent them had read that they were taken.
    repeated_after_reply: list[str] = field(default_factory=list)
    #: Most mails that one kill has repeated: one for each connection at the most.
    most_by_a_kill: int = 0
    #: Most connections that were open at the same time.
    connections: int = 0
    #: Those of them that no kill explains.
    unexplained: list[str] = field(default_factory=list)
    #: Copies too many by the kill that explains them.
    repeated: Counter[str] = field(default_factory=Counter)
    #: As many copies too many as there may be: mails accepted just before a kill.
    allowed: int = 0
    #: Why no worker had a clock of its own; empty where some had.
    no_clocks: str = ""
    #: How often workers were started with which clock, and how often they told.
    clocks: list[str] = field(default_factory=list)
    #: Clocks of which no worker told that it is wrong.
    clocks_untold: list[str] = field(default_factory=list)
    #: Attachments that are in the outbox, and their files.
    files: int = 0
    #: Those whose file is gone, or another one.
    files_lost: list[str] = field(default_factory=list)
    #: Transactions that the host held open, by what it did in them.
    held_open: Counter[str] = field(default_factory=Counter)
    #: From when until when SQLite's only writer was the host, in seconds since the epoch: nobody could write then.
    held_up: list[tuple[float, float]] = field(default_factory=list)
    #: The longest of them, in seconds.
    longest_held: float = 0.0
    #: Longest statement of a worker while one was held, in seconds.
    longest_wait: float = 0.0
    #: Statements of workers that went on when such a transaction ended, and not before.
    waited_for_host: list[str] = field(default_factory=list)
    #: Mails that the project beside it has stored, and what became of them.
    neighbours: int = 0
    neighbours_lost: list[str] = field(default_factory=list)
    neighbours_repeated: int = 0
    #: Files that it has left in the storage.
    neighbours_files_left: int = 0
    #: Longest time between the acceptance of a repeated mail and the kill, in seconds.
    window: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether everything is as it must be."""
        wrong = self.lost or self.never_committed or self.unfinished or self.unexplained or self.files_lost
        wrong = wrong or self.repeated_after_reply or self.most_by_a_kill > max(self.connections, 1)
        wrong = wrong or self.clocks_untold or self.neighbours_lost or self.neighbours_files_left
        return not wrong and self.duplicated <= (self.allowed if self.on_crash == "resend" else 0)


def take_tally(
    seed: int,
    messages: int,
    on_crash: str,
    mail_journal: Path,
    feeder_journal: Path,
    kills: Sequence[Kill],
    neighbour_journal: Path | None = None,
) -> Tally:
    """Compare what was fed with the outbox and with the mail server's journal."""
    accepted: dict[Pair, list[Copy]] = defaultdict(list)
    of_neighbour: dict[Pair, list[Copy]] = defaultdict(list)
    all_kills = list(kills)
    read: set[str] = set()
    connections = 0
    for entry in JournalReader(mail_journal).new_entries():
        if entry.what == "accepted":
            number, message_id, recipients, received_at = entry.details
            for recipient in recipients.split(","):
                copies = of_neighbour if recipient.startswith(NEIGHBOURS) else accepted
                copies[message_id, recipient].append(Copy(entry.at, float(received_at), number))
        elif entry.what == "read":
            read.add(entry.details[0])
        elif entry.what == "open":
            connections = max(connections, int(entry.details[0]))
        elif entry.what == "died":
            all_kills.append(Kill(f"mail server {entry.details[0]}", entry.at, entry.at))
    tally = Tally(on_crash, sorted(all_kills, key=lambda kill: kill.begun))
    tally.connections = connections
    cancelled = {
        entry.details[0]: entry.at for entry in JournalReader(feeder_journal).new_entries() if entry.what == "cancelled"
    }
    _compare(tally, seed, messages, accepted, cancelled)
    _compare_files(tally)
    if connection.vendor == "sqlite":
        for entry in JournalReader(feeder_journal).new_entries():
            if entry.what == "wrote":
                tally.held_up.append((entry.at, float(entry.details[0])))
    _explain(tally, accepted)
    for (message_id, recipient), copies in (accepted | of_neighbour).items():
        if any(copy.number in read for copy in sorted(copies)[:-1]):
            tally.repeated_after_reply.append(f"{message_id} to {recipient}")
    if neighbour_journal is not None:
        _compare_neighbour(tally, neighbour_journal, of_neighbour)
    return tally


def _compare(
    tally: Tally, seed: int, messages: int, accepted: dict[Pair, list[Copy]], cancelled: dict[str, float]
) -> None:
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
        if state is State.CANCELLED and mail.key in cancelled:
            tally.never_committed += [
                f"{mail.key}: sent after it was cancelled"
                for pair in pairs
                for copy in accepted.get(pair, [])
                if copy.received_at > cancelled[mail.key] + _ON_ITS_WAY
            ]
            continue
        if missing and not (state is State.HELD and tally.on_crash == "hold"):
            tally.lost.append(f"{mail.key}: {state.value}, {', '.join(missing)}; {message.reason or message.reply}")
    tally.never_committed += [f"in the outbox: {message.recipients}" for message in rows.values()]
    tally.never_committed += [f"sent: {message_id} to {to}" for message_id, to in sorted(accepted.keys() - expected)]


def _compare_neighbour(tally: Tally, journal: Path, accepted: dict[Pair, list[Copy]]) -> None:
    sent = {recipient for _, recipient in accepted}
    for entry in JournalReader(journal).new_entries():
        if entry.what == "stored":
            tally.neighbours += 1
            if entry.details[0] not in sent:
                tally.neighbours_lost.append(f"to {entry.details[0]}, of the project beside it")
        elif entry.what == "left":
            tally.neighbours_files_left = int(entry.details[0])
    tally.neighbours_repeated = sum(len(copies) - 1 for copies in accepted.values())
    for (message_id, recipient), copies in accepted.items():
        copies.sort()
        tally.unexplained += [
            _describe(tally, message_id, recipient, copy.at, again.at)
            for copy, again in zip(copies, copies[1:], strict=False)
            if not any(_repeats(kill, copy) for kill in tally.kills)
        ]


def _compare_files(tally: Tally) -> None:
    for attachment in Attachment.objects.select_related("stored", "message"):
        tally.files += 1
        key = attachment.message.idempotency_key if attachment.message else "batch"
        try:
            with attachment.file.open() as file:
                content = file.read()
        except OSError as error:
            tally.files_lost.append(f"{key}: {error}")
            continue
        if content != file_of(str(key)):
            tally.files_lost.append(f"{key}: {content!r}")


def measure_waits(tally: Tally, feeder_journal: Path, statements: Path) -> None:
    """Find how long workers waited while the host held transactions open."""
    held: list[tuple[float, float]] = []
    for entry in JournalReader(feeder_journal).new_entries():
        if entry.what == "held":
            until, what = float(entry.details[0]), entry.details[1]
            held.append((entry.at, until))
            tally.held_open[what] += 1
            tally.longest_held = max(tally.longest_held, until - entry.at)
    for entry in JournalReader(statements).new_entries():
        began, ended = entry.at, float(entry.details[0])
        for held_from, held_until in held:
            if began < held_until and ended > held_from:
                tally.longest_wait = max(tally.longest_wait, ended - began)
            # As long as it took, it went on just after that transaction had ended.
            if began < held_until - 0.5 and held_until <= ended < held_until + 0.2:
                tally.waited_for_host.append(f"{ended - began:.2f} s: {entry.details[1]}")


def _explain(tally: Tally, accepted: dict[Pair, list[Copy]]) -> None:
    """Find the kill behind each copy too many."""
    copies = [copy for found in accepted.values() for copy in found]
    for kill in tally.kills:
        tally.allowed += sum(_repeats(kill, _written_at(tally, copy)) for copy in copies)
    by_kill: dict[Kill, set[str]] = defaultdict(set)
    for (message_id, recipient), found in accepted.items():
        found.sort()
        for copy, again in zip(found, found[1:], strict=False):
            tally.duplicated += 1
            written = _written_at(tally, copy)
            culprits = [kill for kill in tally.kills if _repeats(kill, written)]
            if not culprits:
                tally.unexplained.append(_describe(tally, message_id, recipient, copy.at, again.at))
                continue
            nearest = min(culprits, key=lambda kill: abs(kill.begun - copy.at))
            tally.repeated[nearest.what] += 1
            tally.window = max(tally.window, nearest.begun - copy.at)
            by_kill[nearest].add(message_id)
    tally.most_by_a_kill = max(map(len, by_kill.values()), default=0)


def _written_at(tally: Tally, copy: Copy) -> Copy:
    """The same copy as if it had been taken when it could be written down that it was."""
    until = [ended for began, ended in tally.held_up if began <= copy.at + WINDOW and copy.at <= ended]
    return copy._replace(at=max(until) + WINDOW) if until else copy


def _repeats(kill: Kill, copy: Copy) -> bool:
    """Whether whoever was killed had sent all of the content, and could not write down yet that it was taken."""
    return copy.received_at - _ON_ITS_WAY <= kill.ended and kill.begun <= copy.at + WINDOW


def _describe(tally: Tally, message_id: str, recipient: str, at: float, again: float) -> str:
    nearest = min(tally.kills, key=lambda kill: abs(kill.begun - at), default=None)
    kill = f"{nearest.what} at {nearest.begun:.3f}" if nearest else "none"
    return f"{message_id} to {recipient}: accepted at {at:.3f} and {again:.3f}; nearest kill: {kill}"
