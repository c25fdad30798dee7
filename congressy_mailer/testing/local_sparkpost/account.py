"""An account at SparkPost: what is behind its SMTP relay and its HTTP API alike."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from typing import Any

from .events import AcceptedMail, event_batch
from .fates import CANCELLED, Happening, fate, suppressed
from .posting import Poster
from .rules import AccountRules
from .suppression_list import TYPES, SuppressionList
from .webhooks import Webhooks

#: What an API key may be good for, in SparkPost's words (article "Create API Keys").
PERMISSIONS = frozenset(
    {"transmissions/modify", "suppression_lists/manage", "webhooks/modify", "sending_domains/manage"}
)

# Classes of bounces that put an address on the list, for all mail, by the rules of the account.
_LISTED_CLASSES = {"hard": {"10", "30", "90"}, "hard and admin": {"10", "25", "30", "80", "90"}}
_LISTED_BY = {
    "spam_complaint": "Spam Complaint",
    "list_unsubscribe": "List Unsubscribe",
    "link_unsubscribe": "Unsubscribe Link",
}


class Account:
    """An account. Safe to use from several threads."""

    def __init__(self, key: str, webhooks: Webhooks, poster: Poster, *, seed: int = 0) -> None:
        #: The API key, which is the password of SMTP, too.
        self.key = key
        #: What the key may do; may be changed at any time.
        self.permissions = PERMISSIONS
        #: Mails that may still be sent by HTTP before 420 is answered; ``None``: any number.
        self.sending_limit: int | None = None
        #: Domains that mail may come from; ``None``: any.
        self.sending_domains: frozenset[str] | None = None
        #: What is wrong with a sending domain, such as ``{"ownership_verified": False}``, by its name.
        self.domain_status: dict[str, dict[str, Any]] = {}
        #: What it does where SparkPost's pages leave room.
        self.rules = AccountRules()
        self.suppression_list = SuppressionList()
        self.webhooks = webhooks
        self.poster = poster
        #: Every event so far, in the order in which it happened.
        self.events: list[dict[str, Any]] = []
        self._scheduled: list[AcceptedMail] = []
        self._rng = random.Random(seed)  # noqa: S311
        self._lock = threading.Lock()

    def accept(self, mail: AcceptedMail) -> None:
        """Let the world have a mail that was taken."""
        self._record_events(mail, [Happening("injection"), *self._fate(mail)])

    def schedule(self, mail: AcceptedMail) -> None:
        """Keep a mail until its campaign is cancelled: its time does not come here."""
        with self._lock:
            self._scheduled.append(mail)

    def cancel_campaign(self, campaign: str) -> None:
        """Cancel what is scheduled of a campaign: each mail bounces (article "Scheduling Your Emails Using the
        Transmissions API")."""
        with self._lock:
            cancelled = [mail for mail in self._scheduled if mail.campaign == campaign]
            self._scheduled = [mail for mail in self._scheduled if mail.campaign != campaign]
        for mail in cancelled:
            self._record_events(mail, [Happening("injection"), CANCELLED])

    def suppression_of(self, recipient: str, *, transactional: bool) -> Happening | None:
        """What SparkPost says of a mail to an address on its suppression list; ``None``: it is not there."""
        source = self.suppression_list.source_of(recipient, TYPES[0] if transactional else TYPES[1])
        return suppressed(source) if source is not None else None

    def generation_failed(self, mail: AcceptedMail, reason: str) -> None:
        """Say that a mail could not be made from its template (article "Upcoming Breaking Changes to the
        Transmissions API": that is found out after the call)."""
        self._record_events(mail, [Happening("generation_failure", {"error_code": "554", "reason": reason})])

    def new_id(self) -> str:
        """An id as SparkPost gives transmissions."""
        with self._lock:
            return str(self._rng.randrange(10**16, 10**17))

    def events_of(self, recipient: str) -> list[dict[str, Any]]:
        """What happened to the mails of one recipient, without the wrapping."""
        inside = [next(iter(event["msys"].values())) for event in self.events]
        return [event for event in inside if event["raw_rcpt_to"] == recipient]

    def _fate(self, mail: AcceptedMail) -> Sequence[Happening]:
        suppression = self.suppression_of(mail.recipient, transactional=mail.transactional)
        if suppression is not None and not mail.options.get("skip_suppression"):
            return [suppression]
        return fate(
            mail.recipient,
            opens=mail.options.get("open_tracking") is True,
            clicks=mail.options.get("click_tracking") is True,
            link=mail.link,
        )

    def _record_events(self, mail: AcceptedMail, happenings: Sequence[Happening]) -> None:
        with self._lock:
            events = list(event_batch(mail, happenings, now=int(time.time()), rng=self._rng))
            self.events += events
        for happening in happenings:
            self._update_list(mail, happening)
        self.poster.add(events)

    def _update_list(self, mail: AcceptedMail, happening: Happening) -> None:
        """What is told about transactional mail stops such mail, and the same for the other (article "Using Suppression
        Lists")."""
        if happening.type in ("bounce", "out_of_band"):
            if (
                not happening.own_doing
                and happening.fields["bounce_class"] in _LISTED_CLASSES[self.rules.listed_categories]
            ):
                reason = happening.fields["raw_reason"]
                self.suppression_list.add(mail.recipient, source="Bounce Rule", description=reason)
        elif happening.type in _LISTED_BY:
            type_ = TYPES[0] if mail.transactional else TYPES[1]
            self.suppression_list.add(mail.recipient, [type_], source=_LISTED_BY[happening.type])
