"""What is tried with each server: some mails, a way to the server, and what must have become of each recipient."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from uuid import uuid4

from django.utils import timezone

from congressy_mailer.delivery.composing import compose
from congressy_mailer.exceptions import NoFreeConnection, TransportUnavailable
from congressy_mailer.mime.writer import MailContent
from congressy_mailer.models import Message
from congressy_mailer.transports.base import ComposedMail
from tests.support.transports import transport_to

from .installed import RealServer

_TEXT = "Texto\n.\n..dois"
#: Recipients and senders that begin so never get a mail; the second are never refused for good either.
_REFUSED = ("nobody", "toolarge")
_NEVER = ("full",)


@dataclass
class Result:
    """What has become of the mails of one case."""

    sent: int = 0
    lost: int = 0
    copies: int = 0
    explained: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Case:
    """One thing that is tried, with the servers that have this variant of their configuration."""

    run: Callable[[RealServer, int, random.Random], Result]
    variant: str = ""


@dataclass(frozen=True)
class Mail:
    """One mail of a case."""

    to: list[str]
    text: str = _TEXT
    sender: str = "mail@example.com"


def _to(name: str) -> str:
    return f"{name}@example.com"


def _mixed_mails() -> list[Mail]:
    mails = []
    for number in range(60):
        to = [_to(f"r{number}")]
        if number % 7 == 0:
            to.append(_to(f"nobody{number}"))
        if number % 11 == 0:
            to.append(_to(f"later{number}"))
        mails.append(Mail(to))
    return mails


def _mixed(server: RealServer, port: int, chance: random.Random) -> Result:
    return _deliver(server, port, _mixed_mails())


def _many_recipients(server: RealServer, port: int, chance: random.Random) -> Result:
    return _deliver(server, port, [Mail([_to(f"r{number}") for number in range(75)]) for _ in range(2)])


def _one_by_one(server: RealServer, port: int, chance: random.Random) -> Result:
    return _deliver(server, port, [Mail([_to("ana")]) for _ in range(20)], together=1)


def _large(server: RealServer, port: int, chance: random.Random) -> Result:
    return _deliver(server, port, [Mail([_to("ana")], "linha\n.\n" * 100_000) for _ in range(6)])


def _cut_replies(server: RealServer, port: int, chance: random.Random) -> Result:
    with _line(port, lambda: (None, chance.randrange(120, 2500))) as line:
        return _deliver(server, line, [Mail([_to("ana")]) for _ in range(40)])


def _cut_commands(server: RealServer, port: int, chance: random.Random) -> Result:
    with _line(port, lambda: (chance.randrange(20, 6000), None)) as line:
        return _deliver(server, line, [Mail([_to("ana")]) for _ in range(40)])


def _slow_line(server: RealServer, port: int, chance: random.Random) -> Result:
    with _line(port, delay=0.05) as line:
        return _deliver(server, line, [Mail([_to("ana")]) for _ in range(15)])


def _good_behind_full(server: RealServer, port: int, chance: random.Random) -> Result:
    to = [*(_to(f"full{number}") for number in range(25)), *(_to(f"r{number}") for number in range(5))]
    return _deliver(server, port, [Mail(to)], rounds=1)


def _hangs_up(server: RealServer, port: int, chance: random.Random) -> Result:
    return _deliver(server, port, [Mail([_to(f"r{n}"), _to(f"hangup{n}"), _to(f"s{n}")]) for n in range(10)])


def _stages(server: RealServer, port: int, chance: random.Random) -> Result:
    stages = ("mail", "data", "end")
    senders = [_to(f"later-{stage}{number}") for number in range(4) for stage in stages]
    return _deliver(server, port, [Mail([_to("ana"), _to("rui")], sender=sender) for sender in senders])


def _too_large(server: RealServer, port: int, chance: random.Random) -> Result:
    mails = [Mail([_to(f"r{number}")]) for number in range(10)]
    for number in range(0, 10, 3):
        mails.insert(number, Mail([_to(f"toolarge{number}")], "linha\n" * 20_000))
    return _deliver(server, port, mails)


def _threads(server: RealServer, port: int, chance: random.Random) -> Result:
    return _deliver(server, port, [Mail([_to(f"r{number}")]) for number in range(90)], threads=3, rounds=200)


def _no_login(server: RealServer, port: int, chance: random.Random) -> Result:
    result = _deliver(server, port, [Mail([f"r{number}@elsewhere.example"]) for number in range(5)], rounds=2)
    # All of them wait until somebody configures the login.
    result.lost = 0
    if result.sent:
        result.problems.append("The server has relayed it.")
    return result


CASES = {
    "many mails, some refused": Case(_mixed),
    "75 recipients": Case(_many_recipients),
    "one mail at a time": Case(_one_by_one),
    "large contents": Case(_large),
    "replies cut at random bytes": Case(_cut_replies),
    "commands cut at random bytes": Case(_cut_commands),
    "a line of 100 ms": Case(_slow_line),
    "pipelining checked strictly": Case(_mixed, "strict"),
    "5 behind 25 full mailboxes": Case(_good_behind_full, "hangs up"),
    "421 among recipients": Case(_hangs_up, "hangs up"),
    "451 at MAIL, DATA and content": Case(_stages, "stages"),
    "a limit of size": Case(_too_large, "small"),
    "1 connection, 3 threads": Case(_threads, "one connection"),
    "relaying denied": Case(_no_login, "closed"),
}


class _Delivery:
    """The mails of a case on their way, by one thread or some."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.accepted: Counter[tuple[str, str]] = Counter()
        self.doubts: Counter[tuple[str, str]] = Counter()
        self.problems: list[str] = []

    def run(self, messages: list[tuple[Message, str]], together: int, rounds: int) -> None:
        """Deliver until nobody is deferred, or so often."""
        waiting = {uuid4(): message for message in messages}
        for _ in range(rounds):
            if not waiting:
                return
            batch = list(waiting.items())[:together]
            mails = (ComposedMail(key, compose(one, MailContent("Olá", text, ""), [])) for key, (one, text) in batch)
            try:
                with transport_to(self.port) as transport:
                    for outcome in transport.deliver(mails):
                        message, _ = waiting[outcome.key]
                        self.accepted.update((message.message_id, one) for one in outcome.accepted)
                        if outcome.in_doubt:
                            self.doubts.update((message.message_id, one) for one in outcome.deferred)
                        if outcome.perhaps_no_login:
                            continue
                        self.problems += [
                            f"{one} was refused for good: {reply}"
                            for one, reply in outcome.rejected.items()
                            if not one.startswith(_REFUSED)
                        ]
                        if outcome.sender_refused:
                            self.problems.append(f"The sender was refused: {outcome.reply}")
                        message.remaining = list(outcome.deferred)
                        if not outcome.deferred:
                            del waiting[outcome.key]
            except (NoFreeConnection, TransportUnavailable):
                time.sleep(0.1)


def _deliver(
    server: RealServer, port: int, mails: list[Mail], *, together: int = 100, threads: int = 1, rounds: int = 40
) -> Result:
    messages = [_message(mail) for mail in mails]
    delivery = _Delivery(port)
    with_texts = [(message, mail.text) for message, mail in zip(messages, mails, strict=True)]
    shares = [with_texts[number::threads] for number in range(threads)]
    running = [threading.Thread(target=delivery.run, args=(share, together, rounds)) for share in shares]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    expected = {
        (message.message_id, one)
        for message in messages
        for one in message.to
        if not one.startswith((*_REFUSED, *_NEVER))
    }
    delivered = _settled(server, delivery.accepted)
    ours = {message.message_id for message in messages}
    surplus = [mail for mail in delivered if mail[0] in ours and mail not in expected]
    mine = {mail: delivered[mail] for mail in expected if mail in delivered}
    problems = [
        *delivery.problems,
        *(f"{mail} was taken twice" for mail, count in delivery.accepted.items() if count > 1),
        *(f"{mail} was delivered to somebody refused" for mail in surplus),
    ]
    return Result(
        sent=len(mine),
        lost=len(expected) - len(mine),
        copies=sum(count - 1 for count in mine.values()),
        explained=sum(min(count - 1, delivery.doubts[mail]) for mail, count in mine.items()),
        problems=problems[:5],
    )


def _message(mail: Mail) -> Message:
    now = timezone.now()
    return Message(from_email=mail.sender, to=list(mail.to), message_id=f"<{uuid4()}@x>", created_at=now, queued_at=now)


def _settled(server: RealServer, accepted: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """What has been delivered, once all that was accepted is: some servers deliver after they have answered."""
    deadline = time.monotonic() + 30
    while accepted.keys() - server.delivered().keys() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    return server.delivered()


@contextmanager
def _line(
    port: int, cut: Callable[[], tuple[int | None, int | None]] = lambda: (None, None), delay: float = 0.0
) -> Iterator[int]:
    """A way to the server that is cut after so many bytes of the client's or the server's, or takes its time."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            limits = cut()
            upstream = socket.create_connection(("127.0.0.1", port))
            for source, target, limit in ((client, upstream, limits[0]), (upstream, client, limits[1])):
                threading.Thread(target=_pass_on, args=(source, target, limit, delay), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _pass_on(source: socket.socket, target: socket.socket, limit: int | None, delay: float) -> None:
    with suppress(OSError):
        while data := source.recv(65536 if limit is None else min(limit, 65536)):
            time.sleep(delay)
            target.sendall(data)
            if limit is not None:
                limit -= len(data)
                if not limit:
                    break
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
