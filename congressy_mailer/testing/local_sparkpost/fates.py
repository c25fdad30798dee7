"""The world behind SparkPost: what becomes of an accepted mail, decided by its recipient's address alone.

========================  =============================================================================================
``hard-bounce@…``         refused by its server, which knows no such user
``soft-bounce@…``         refused, the mailbox is full
``block@…``               refused as spam
``admin-bounce@…``        refused by an administrator's decision
``out-of-band@…``         delivered, then bounced by a mail that comes back
``complaint@…``           delivered, then reported as spam
``unsubscribe@…``         delivered, then unsubscribed in the mail program by SparkPost's own ``List-Unsubscribe``
``unsubscribe-by-mail@…`` delivered, then an answer comes back that asks to unsubscribe
``auto-reply@…``          delivered, then an automatic answer comes back
``delay-3@…``             delayed three times, then delivered; any number. Over SMTP it is greylisted before that
``delayed-3@…``           the same without greylisting: SparkPost takes it at once
everybody else            delivered; where that is tracked, half of them open it, and half of those follow a link
========================  =============================================================================================

Anything may follow the name after a ``+``. What SparkPost refuses at once, over SMTP only, is in :mod:`.replies`.
Classes of bounces are those of the support article "Bounce Classification Codes".
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

_LONGEST_DELAY = 20


@dataclass(frozen=True)
class Happening:
    """Something that happens to a mail."""

    #: SparkPost's name of the event (API reference, "Event Webhooks").
    type: str
    #: Fields that this event has and others have not; numbers are texts, as SparkPost writes them.
    fields: dict[str, Any] = field(default_factory=dict)
    #: Whether SparkPost itself has not tried to deliver the mail.
    own_doing: bool = False


def _refusal(type_: str, bounce_class: int, error_code: str, reason: str, *, own_doing: bool = False) -> Happening:
    fields = {"bounce_class": str(bounce_class), "error_code": error_code, "reason": reason, "raw_reason": reason}
    return Happening(type_, fields, own_doing)


_DELIVERY = Happening("delivery", {"queue_time": "1200", "delv_method": "esmtp"})
_DELAY = _refusal("delay", 24, "451", "451 4.4.1 [internal] No answer from the server")
_HARD_BOUNCE = _refusal("bounce", 10, "550", "550 5.1.1 no such user")
_FATES: dict[str, list[Happening]] = {
    "hard-bounce": [_HARD_BOUNCE],
    "soft-bounce": [_refusal("bounce", 22, "552", "552 5.2.2 mailbox full")],
    "block": [_refusal("bounce", 51, "554", "554 5.7.1 blocked by a list of senders of spam")],
    "admin-bounce": [_refusal("bounce", 25, "550", "550 5.7.1 refused by the administrator")],
    "out-of-band": [_DELIVERY, _refusal("out_of_band", 10, "550", "550 5.1.1 no such user, found out later")],
    "complaint": [
        _DELIVERY,
        Happening("spam_complaint", {"fbtype": "abuse", "report_by": "mail.example", "report_to": "sparkpost.example"}),
    ],
    "unsubscribe-by-mail": [_DELIVERY, _refusal("out_of_band", 90, "550", "unsubscribe")],
    "auto-reply": [_DELIVERY, _refusal("out_of_band", 60, "550", "I am out of the office")],
    "unsubscribe": [_DELIVERY, Happening("list_unsubscribe", {"mailfrom": "unsubscribe@sparkpost.example"})],
}
_SUPPRESSION_REASONS = {"List Unsubscribe": "Unsubscribe Rule", "Unsubscribe Link": "Unsubscribe Rule"}


def suppressed(source: str) -> Happening:
    """What SparkPost says of a mail to an address on its suppression list, after it has taken the mail (article
    "Preparing For Asynchronous Suppressions"; the words are those of "Suppression timing").

    Args:
        source: what has put the address there.
    """
    why = _SUPPRESSION_REASONS.get(source, source)
    reason = f"554 5.7.1 recipient address was suppressed due to customer policy ({why})"
    return _refusal("bounce", 25, "554", reason, own_doing=True)


#: What SparkPost says of a mail whose campaign was cancelled (article "Scheduling Your Emails Using the Transmissions
#: API").
CANCELLED = _refusal("bounce", 25, "554", "554 5.7.1 [internal] Campaign cancelled", own_doing=True)


_DELAYED = re.compile(r"delay(?:ed)?-(\d{1,3})")


def fate(recipient: str, *, opens: bool, clicks: bool, link: str) -> list[Happening]:
    """What happens after SparkPost has taken a mail, in order.

    Args:
        recipient: whom it is for.
        opens: whether opening it is tracked.
        clicks: whether links in it are.
        link: one that may be followed; empty where there is none.
    """
    name = recipient.rpartition("@")[0].lower().partition("+")[0]
    if name in _FATES:
        return _FATES[name]
    delayed = _DELAYED.fullmatch(name)
    delays = [_DELAY] * min(int(delayed[1]), _LONGEST_DELAY) if delayed else []
    return [*delays, _DELIVERY, *_reader_events(recipient, opens=opens, clicks=clicks, link=link)]


def _reader_events(recipient: str, *, opens: bool, clicks: bool, link: str) -> list[Happening]:
    """By the address, not by chance: a run can be repeated."""
    kind = hashlib.sha256(recipient.lower().encode()).digest()[0]
    reader = {"user_agent": "Mozilla/5.0 (X11; Linux x86_64)", "geo_ip": {"country": "BR", "region": "GO"}}
    read = []
    if opens and kind % 2 == 0:
        read += [Happening("initial_open", reader), Happening("open", reader)]
    if clicks and link and kind % 4 == 0:
        read.append(Happening("click", {**reader, "target_link_url": link, "target_link_name": "Raw URL"}))
    return read
