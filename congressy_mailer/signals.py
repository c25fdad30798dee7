"""Django signals for a host that wants to know. Receivers run in the worker, ``queued`` in the process that stored the
message. What one raises is logged and no more: it stops neither the delivery nor other receivers.

.. data:: transport_unavailable

   A mail backend can no longer be used; its mail stays queued. Sent once, when that begins. Arguments: ``using``
   (alias, empty for the default one), ``sender_domain`` (empty: no mail at all is taken, else only this domain is
   refused), ``reason`` (text for people).

.. data:: transport_available

   It can be used again. Arguments: ``using``, ``sender_domain``, and ``unavailable_for`` (``timedelta``).

.. data:: queued

   A message is stored and will be sent, now or at its ``send_at``. Sent once the transaction that stored it has
   committed, in the process that did; not for the messages of a batch. Of this signal and the next four the sender is
   :class:`~congressy_mailer.models.Message`. Argument: ``message``.

.. data:: sent

   A mail server has accepted a message for at least one recipient. Argument: ``message``, whose ``state`` is set;
   refresh it from the database for the rest.

.. data:: deferred

   A message was refused temporarily, or cannot be composed yet, and is tried again. Argument: ``message``.

.. data:: failed

   A message was refused for good, cannot be composed, or is given up. Argument: ``message``.

.. data:: held

   A message is set aside for a person to decide: by an interceptor, or because workers died with it. Argument:
   ``message``.

.. data:: tracked

   SparkPost has reported an event of a mail; sent once for each event. The sender is
   :class:`~congressy_mailer.models.Event`. Arguments: ``event``, a :class:`TrackedEvent`.

.. data:: address_suppressed

   An address has come onto the suppression list: mail to it is stopped that was not. A further reason for the same mail
   is not told again. The sender is :class:`~congressy_mailer.models.Suppression`.
   Arguments: ``address``, ``scope`` and ``source`` (as in :class:`~congressy_mailer.models.Suppression`), ``list_id``
   (empty unless the scope is one list), ``reason`` (text for people).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.dispatch import Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedEvent:
    """An event of a mail that SparkPost has reported."""

    #: What happened: a value of :class:`congressy_mailer.models.Event.Type`.
    type: str
    #: SparkPost's own name of it, such as ``out_of_band``.
    sparkpost_type: str
    #: Key of the message; ``None``: it is none of ours, or none that is still known.
    message: UUID | None
    #: Whom it was sent to, as SparkPost writes the address.
    recipient: str
    #: When it happened.
    at: datetime
    #: SparkPost's class of a bounce, and the category of that; ``None`` and empty for anything else.
    bounce_class: int | None = None
    bounce_category: str = ""
    #: The other server's words; empty where the message is sensitive.
    reason: str = ""
    #: The link that was followed; empty where the message is sensitive.
    url: str = ""
    #: As the mail was sent with.
    campaign: str = ""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


queued = Signal()
sent = Signal()
deferred = Signal()
failed = Signal()
held = Signal()
transport_unavailable = Signal()
transport_available = Signal()
tracked = Signal()
address_suppressed = Signal()
