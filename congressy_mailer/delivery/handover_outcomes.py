"""What becomes of the mails that are handed over to one mail backend, and what that tells of the backend."""

from __future__ import annotations

import logging

from ..exceptions import login_missing_error
from ..mime.addresses import domain_of
from ..models import Message, State
from ..redaction import redact_outcome
from ..replies import Outcome
from . import missing_login
from .memory import HeldMails
from .task_parts import Route, TaskParts

logger = logging.getLogger("congressy_mailer.delivery")


class Outcomes:
    """Records outcomes as the server answers."""

    def __init__(self, parts: TaskParts, route: Route, held_mails: HeldMails) -> None:
        """
        Args:
            parts: of the task.
            route: the backend.
            held_mails: the mails in memory; those with an outcome are released.
        """
        self._parts = parts
        self._route = route
        self._held_mails = held_mails
        #: What was raised while an outcome was recorded; nothing more is handed over then.
        self.error: BaseException | None = None
        #: A sender was refused since mails were last composed: some of those may be put back, and not be sent.
        self.sender_refused = False
        #: The backend has taken a mail.
        self._accepts = False
        #: Refused over a connection without login, perhaps for that: see :mod:`.missing_login`.
        self._login_doubts: list[tuple[Message, Outcome]] = []

    def note(self, outcome: Outcome) -> None:
        """Note an outcome that is recorded later: killed, this process would know it no more."""
        message = self._parts.claims.handed_over.get(outcome.key)
        if message is not None:
            self._parts.recorder.note(message, redact_outcome(message, outcome))

    def record(self, outcome: Outcome) -> None:
        """Record an outcome; after an error the outcomes of all that was handed over still follow, and nothing else.

        A transport may know several outcomes at once. Mails whose outcome were lost here would be sent again.
        """
        try:
            self._record(outcome)
        except BaseException as error:
            self.error = self.error or error

    def _record(self, outcome: Outcome) -> None:
        message = self._parts.claims.handed_over.pop(outcome.key)
        self._held_mails.release(message.id)
        if outcome.interrupted:
            logger.warning("Message %s was interrupted: the mail server takes longer than TIME_LIMIT.", message.id)
            self._parts.deadlines.end_slice()
        if outcome.perhaps_no_login and not self._accepts:
            # No recipient has it. The end of the slice decides its state.
            self._parts.claims.handed_over[message.id] = message
            self._login_doubts.append((message, outcome))
            return
        outcome = redact_outcome(message, outcome)
        if outcome.sender_refused:
            self._record_refused_sender(message, outcome)
            return
        self._parts.claims.record(message, outcome)
        # What was simply accepted may be written down a moment later.
        state = State.SENT if outcome.accepted and not outcome.deferred else message.state
        self._parts.claims.counts[state] += 1
        replies = (outcome.reply, *outcome.deferred.values(), *outcome.rejected.values())
        if any(reply.code is not None for reply in replies):
            # Any reply, also a refusal of the mail, shows that the server is reachable.
            self._route.breaker.record_success()
        if outcome.accepted:
            self._accepts = True
            self._route.breaker.record_success(domain_of(message.from_email))
        self._route.rate_limiter.observe_replies(replies, self._parts.recorder.flush)

    def _record_refused_sender(self, message: Message, outcome: Outcome) -> None:
        sender_domain = domain_of(message.from_email)
        self.sender_refused = True
        self._route.breaker.record_failure(sender_domain, str(outcome.reply))
        self._parts.claims.waiting[message.id] = message
        self._route.hold_back([message.id], self._route.breaker.open_until[sender_domain])
        self._route.breaker.record_success()

    def settle_login_doubts(self) -> None:
        """Record what was refused over a connection without login, unless all mail is refused for that.

        Raises:
            TransportUnavailable: no login is configured, and the server takes no mail without one.
        """
        doubts, self._login_doubts = self._login_doubts, []
        if not doubts:
            return
        if not self._accepts and missing_login.explains(self._route.using, [outcome for _, outcome in doubts]):
            raise login_missing_error(doubts[0][1].reply)
        for message, outcome in doubts:
            del self._parts.claims.handed_over[message.id]
            self._parts.claims.record(message, redact_outcome(message, outcome))
