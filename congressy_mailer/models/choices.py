"""What a message, a mail and a bounce can be: the values of the columns that have only a few."""

from __future__ import annotations

from enum import IntEnum

from django.db import models
from django.utils.translation import gettext_lazy as _


class State(models.TextChoices):
    """Where a message is on its way. Only :mod:`congressy_mailer.outbox` changes it."""

    #: Its ``send_at`` is ahead.
    SCHEDULED = "scheduled", _("scheduled")
    #: Published; a task that has its id may claim it.
    QUEUED = "queued", _("queued")
    #: Claimed by a worker under a lease.
    SENDING = "sending", _("sending")
    #: Refused temporarily; tried again at ``due_at``.
    DEFERRED = "deferred", _("deferred")
    #: Accepted by the mail server for at least one recipient, and open for none.
    SENT = "sent", _("sent")
    #: Refused for good by the mail server, or never to be composed.
    FAILED = "failed", _("failed")
    #: Taken back before it was sent.
    CANCELLED = "cancelled", _("cancelled")
    #: Not sent before its ``expires_at``.
    EXPIRED = "expired", _("expired")
    #: Every recipient is on the suppression list.
    SUPPRESSED = "suppressed", _("suppressed")
    #: Its worker died while sending it, and ``ON_CRASH`` is ``"hold"``: a person must decide.
    HELD = "held", _("held")


class DeliveryStatus(models.TextChoices):
    """What SparkPost's events tell of a mail that was sent. With several recipients, what most needs attention."""

    #: Not delivered yet; SparkPost tries again.
    DELAYED = "delayed", _("delayed")
    #: The recipient's server has taken it.
    DELIVERED = "delivered", _("delivered")
    #: It was opened, as far as an image that was loaded tells.
    OPENED = "opened", _("opened")
    #: A link in it was followed.
    CLICKED = "clicked", _("clicked")
    #: SparkPost did not try to deliver it: its policy, its suppression list, or content that it cannot make.
    REJECTED = "rejected", _("rejected by SparkPost")
    #: The recipient's server refused it, at once or after it had taken it.
    BOUNCED = "bounced", _("bounced")
    #: The recipient unsubscribed by it.
    UNSUBSCRIBED = "unsubscribed", _("unsubscribed")
    #: The recipient reported it as spam.
    COMPLAINED = "complained", _("complained")


class BounceCategory(models.TextChoices):
    """Kind of a bounce, by its class (SparkPost, "Bounce Classification Codes")."""

    #: The address does not exist, or never will take mail.
    HARD = "hard", _("hard")
    #: Something that may pass: a full mailbox, a timeout.
    SOFT = "soft", _("soft")
    #: The receiving side does not want it: its content, or its sender.
    BLOCK = "block", _("block")
    #: An administrator's decision.
    ADMIN = "admin", _("admin")
    #: Unknown.
    UNDETERMINED = "undetermined", _("undetermined")


class Priority(models.IntegerChoices):
    """Which of the messages that are due leaves first; lower numbers first."""

    #: Before everything else: password resets, codes.
    HIGH = 1, _("high")
    #: The default of ``send_mail()``.
    NORMAL = 5, _("normal")
    #: After everything else.
    LOW = 9, _("low")


#: States in which no worker holds a message and something is still to be done.
WAITING = (State.SCHEDULED, State.QUEUED, State.DEFERRED)

#: States from which a person may send a message again.
RETRYABLE = frozenset({State.FAILED, State.CANCELLED, State.EXPIRED, State.SUPPRESSED, State.HELD})

#: States that nothing leaves by itself.
FINAL = frozenset({State.SENT, State.FAILED, State.CANCELLED, State.EXPIRED, State.SUPPRESSED, State.HELD})


class PauseScope(models.TextChoices):
    """What a pause holds back."""

    #: All mail that the workers send.
    ALL = "all", _("all sending")
    #: What the tasks of one queue send: single mail, or batches.
    QUEUE = "queue", _("queue")
    #: What would go over one mail backend.
    BACKEND = "backend", _("mail backend")
    #: The mail of one campaign.
    CAMPAIGN = "campaign", _("campaign")
    #: One batch.
    BATCH = "batch", _("batch")


class Retention(IntEnum):
    """What is still kept of a message that is final, and so which setting says how long: the key of the purge."""

    #: The content is not needed any more, and is dropped at once.
    SENSITIVE = 1
    #: A person may send it once more for as long as ``RETRY_FOR``.
    SENSITIVE_FAILED = 2
    #: The same, set aside.
    SENSITIVE_HELD = 3
    #: Content goes after ``KEEP_CONTENT``.
    WHOLE = 4
    #: The same, set aside.
    HELD = 5
    #: Without content: it goes after ``KEEP_MESSAGES``.
    DROPPED = 6
