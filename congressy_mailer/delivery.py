"""One slice of delivery: claim, compose, hand over, record, for at most one time slice."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, OperationalError, connections
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from . import outbox
from .availability import Gate
from .conf import mailer_settings
from .confidential import described, discreet, discreet_error, told
from .content.addresses import domain_of
from .content.attachments import ReadAttachment
from .content.context import decode_many
from .content.mime import OutgoingMail, compose
from .content.templates import Rendered, ready_content, render
from .exceptions import ContentError, ContentNotReady, TransportUnavailable
from .models import Attachment, Message
from .stopping import sigterm_waits
from .transports.base import Composed, Outcome, in_ascii
from .transports.kept import transport_for

logger = logging.getLogger("congressy_mailer.delivery")

_R = TypeVar("_R")
_LONGEST_WAIT_FOR_DATABASE = 5.0


@dataclass
class Slice:
    """What is left to do after a slice."""

    #: Put back because the time was over.
    left: list[UUID] = field(default_factory=list)
    #: To be claimed each alone: a worker died while holding them.
    alone: list[UUID] = field(default_factory=list)
    #: To be tried again after so many seconds.
    waiting: dict[int, list[UUID]] = field(default_factory=dict)


class Delivery:
    """Delivers the messages of one task."""

    def __init__(self, token: str) -> None:
        conf = mailer_settings()
        self._token = token
        self._until = time.monotonic() + conf.TIME_SLICE.total_seconds()
        self._hold = conf.ON_CRASH == "hold"
        # Not to the last moment: another worker may take the message then.
        self._lease_ends = time.monotonic() + conf.LEASE.total_seconds() * 0.9
        #: Claimed, and not handed to a transport.
        self._open: dict[UUID, Message] = {}
        #: Handed to a transport, and without an outcome.
        self._handed_over: dict[UUID, Message] = {}
        self._stopped = False
        #: What templates see, by message; kept here because a local variable is shown in reports of errors.
        self._contexts: dict[UUID, Mapping[str, object] | Exception] = {}
        self._slice = Slice()

    @sensitive_variables()
    def run(self, ids: Sequence[UUID], *, redelivered: bool) -> Slice:
        """Deliver what can be claimed of these messages.

        Raises:
            TransportUnavailable: a mail server cannot be used. Everything that was not sent is queued again.
            django.db.OperationalError: the database is away.
        """
        with sigterm_waits(self._stop):
            return self._run(ids, redelivered)

    def _stop(self) -> None:
        self._until = 0.0
        self._stopped = True

    @sensitive_variables()
    def _run(self, ids: Sequence[UUID], redelivered: bool) -> Slice:
        messages = self._claim(ids, redelivered)
        self._open = {message.id: message for message in messages}
        unavailable: TransportUnavailable | None = None
        # Where this ends in an error nobody publishes what is left, and the next sweep does.
        left_until: datetime | None = timezone.now()
        try:
            for begun, using in enumerate(dict.fromkeys(message.using for message in messages)):
                if begun and time.monotonic() > self._until:
                    break
                try:
                    self._deliver(using, [message for message in messages if message.using == using])
                except TransportUnavailable as error:
                    # Another backend's mail need not wait for this one.
                    unavailable = error
            if unavailable is None and not self._stopped:
                left_until = None
        finally:
            # Also on the way out of an error: nothing has to wait for the lease to run out.
            self._slice.left = list(self._open)
            self._put_back(self._slice.left, until=left_until)
        if unavailable is not None:
            raise unavailable
        if len(messages) < len(ids) > 1:
            self._slice.alone = outbox.suspects(ids)
        return self._slice

    def _claim(self, ids: Sequence[UUID], redelivered: bool) -> list[Message]:
        try:
            return outbox.claim(ids, self._token, redelivered=redelivered)
        except BaseException:
            # They may have been claimed, and not read: nobody would know of it until the lease is over.
            with suppress(Exception):
                connections[outbox.database()].close()
                outbox.release(self._token, ids, timezone.now())
            raise

    def _deliver(self, using: str, messages: Sequence[Message]) -> None:
        gate = Gate(using, {domain_of(message.from_email) for message in messages})
        try:
            messages = self._admitted(gate, messages)
            if messages:
                with transport_for(using) as transport:
                    for outcome in transport.deliver(self._compose_all(gate, messages)):
                        self._record(gate, outcome)
        except TransportUnavailable as found:
            error = discreet_error(self._handed_over.values(), found)
            # What was handed over and has no outcome was not sent.
            self._open |= self._handed_over
            self._handed_over.clear()
            error.retry_in = gate.failed("", str(error))
            self._put_back([message.id for message in messages], until=gate.closed[""])
            raise error from (found.__cause__ if error is found else None)
        finally:
            gate.leave()

    def _admitted(self, gate: Gate, messages: Sequence[Message]) -> list[Message]:
        """Those that may be sent now; the others are put back until it makes sense to look again."""
        admitted = []
        shut: dict[datetime, list[UUID]] = {}
        for message in messages:
            until = gate.closed.get("") or gate.closed.get(domain_of(message.from_email))
            if until is None:
                admitted.append(message)
            else:
                shut.setdefault(until, []).append(message.id)
        for until, ids in shut.items():
            self._put_back(ids, until=until)
        return admitted

    def _put_back(self, ids: Sequence[UUID], until: datetime | None = None) -> None:
        mine = [key for key in ids if self._open.pop(key, None) is not None]
        if mine:
            self._insist(partial(outbox.release, self._token, mine, until))

    def _record(self, gate: Gate, outcome: Outcome) -> None:
        message = self._handed_over.pop(outcome.key)
        sender_domain = domain_of(message.from_email)
        outcome = discreet(message, outcome)
        if outcome.sender_refused:
            gate.failed(sender_domain, str(outcome.reply))
            self._open[message.id] = message
            self._put_back([message.id], until=gate.closed[sender_domain])
            gate.succeeded()
            return
        try:
            wait = self._insist(partial(outbox.record, self._token, message, outcome))
        except (DataError, UnicodeError):
            # That a mail was accepted must not depend on words which the database cannot hold.
            wait = self._insist(partial(outbox.record, self._token, message, in_ascii(outcome)))
        self._wait(message, wait)
        replies = (outcome.reply, *outcome.deferred.values(), *outcome.rejected.values())
        if any(reply.code is not None for reply in replies):
            # Whatever it thinks of the mail, the server is there.
            gate.succeeded()
        if outcome.accepted:
            gate.succeeded(sender_domain)

    def _insist(self, change: Callable[[], _R]) -> _R:
        """What the server has taken must be written down, also where the database is away for a while.

        Raises:
            django.db.OperationalError: it is still away when the lease is about to end.
        """
        wait = 0.1
        while True:
            try:
                return change()
            except (DataError, IntegrityError):
                # Another time would make no difference.
                raise
            except (DatabaseError, InterfaceError) as error:
                # Away, or read-only after a failover, or a connection that an interruption has left in a bad way.
                connection = connections[outbox.database()]
                if connection.in_atomic_block or time.monotonic() + wait > self._lease_ends:
                    raise
                logger.warning("The database is away; what was sent is recorded when it is back: %s", error)
                connection.close()
                self._sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT_FOR_DATABASE)
            except SoftTimeLimitExceeded:
                # Raised once. The record matters more, for as long as the lease holds.
                self._until = 0.0

    def _sleep(self, seconds: float) -> None:
        try:
            time.sleep(seconds)
        except SoftTimeLimitExceeded:
            self._until = 0.0

    def _compose_all(self, gate: Gate, messages: Sequence[Message]) -> Iterator[Composed]:
        self._decode(messages)
        for begun, message in enumerate(messages):
            if (begun and time.monotonic() > self._until) or time.monotonic() > self._lease_ends:
                return
            until = gate.closed.get(domain_of(message.from_email))
            if until is not None:
                self._put_back([message.id], until=until)
                continue
            mail = self._composed(message)
            if mail is None or time.monotonic() > self._lease_ends:
                continue
            if self._hold and not self._insist(partial(outbox.begin, self._token, message.id)):
                continue
            # From here on only an outcome tells what became of it; without one it stays under its lease.
            self._handed_over[message.id] = self._open.pop(message.id)
            yield Composed(message.id, mail)

    # Django finds the mark of run() from no frame below a generator.
    @sensitive_variables()
    def _decode(self, messages: Sequence[Message]) -> None:
        decoded = decode_many([message.context for message in messages])
        self._contexts = {message.id: context for message, context in zip(messages, decoded, strict=True)}

    @sensitive_variables()
    def _composed(self, message: Message) -> OutgoingMail | None:
        """The mail; ``None`` where it cannot be composed, and the message is looked after."""
        try:
            return _compose(message, self._contexts.pop(message.id))
        except ContentNotReady as error:
            said = told(message, error)
            logger.warning("Message %s waits: %s", message.id, said)
            self._wait(message, self._say(outbox.postpone, message, said))
        except ContentError as error:
            said = told(message, error)
            logger.error("Message %s failed: %s", message.id, said)
            self._say(outbox.fail, message, said)
        except (OperationalError, InterfaceError):
            # The database's fault, and no message's.
            raise
        except Exception as error:
            # Out of time, out of memory, or a fault of ours: none of it may stop the messages behind it.
            said = f"{type(error).__name__} while it was composed"
            if message.sensitive:
                # A traceback ends with the exception's words.
                logger.error("Message %s: %s while it was composed.", message.id, described(error))
            else:
                logger.exception("Message %s: %s.", message.id, said)
            self._crashed(message, said)
            self._until = 0.0
        except BaseException as error:
            # The process is being ended, most likely because of this message.
            self._crashed(message, f"{type(error).__name__} while it was composed")
            raise
        del self._open[message.id]
        return None

    def _say(self, change: Callable[[str, UUID, str], _R], message: Message, said: str) -> _R:
        try:
            return self._insist(partial(change, self._token, message.id, said))
        except (DataError, UnicodeError):
            return self._insist(partial(change, self._token, message.id, ascii(said)))

    def _crashed(self, message: Message, said: str) -> None:
        self._insist(lambda: outbox.crashed(self._token, message, said))

    def _wait(self, message: Message, wait: timedelta | None) -> None:
        if wait is not None:
            # A second more: the message must be due when its id comes.
            seconds = round(wait.total_seconds()) + 1
            self._slice.waiting.setdefault(seconds, []).append(message.id)


def _compose(message: Message, context: Mapping[str, object] | Exception) -> OutgoingMail:
    return compose(message, _render(message, context), [_read(one) for one in message.attachments.all()])


def _render(message: Message, context: Mapping[str, object] | Exception) -> Rendered:
    if isinstance(context, Exception):
        raise context
    if not message.template:
        return ready_content(message.subject, message.text, message.html)
    return render(
        message.template, context, subject=message.subject, language=message.language, timezone=message.timezone
    )


def _read(attachment: Attachment) -> ReadAttachment:
    try:
        with attachment.file.open("rb") as file:
            # One byte more than it should have tells that it is another file, without reading all of that.
            content = file.read(attachment.size + 1)
    except (MemoryError, SoftTimeLimitExceeded):
        raise
    except Exception as error:
        # The storage may be away, or another host's that is not mounted yet.
        raise ContentNotReady(
            f"The attachment {attachment.filename!r} cannot be read from the storage: {type(error).__name__}: {error}"
        ) from error
    if hashlib.sha256(content).hexdigest() != attachment.sha256:
        raise ContentError(f"The attachment {attachment.filename!r} is not what was stored: its SHA-256 differs.")
    return ReadAttachment(attachment.filename, content, attachment.mimetype, attachment.content_id)
