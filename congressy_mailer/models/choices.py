"""The values of columns that have only a few: states, delivery statuses, bounce categories and others."""

from __future__ import annotations

from enum import IntEnum

from django.db import models
from django.utils.translation import gettext_lazy as _


class State(models.TextChoices):
    """State of a message. Only :mod:`congressy_mailer.outbox` changes it."""

    #: Its ``send_at`` is in the future.
    SCHEDULED = "scheduled", _("scheduled")
    #: Waits for a task to claim it.
    QUEUED = "queued", _("queued")
    #: Claimed by a worker under a lease.
    SENDING = "sending", _("sending")
    #: Refused temporarily, or not ready to be composed; it is tried again at ``due_at``.
    DEFERRED = "deferred", _("deferred")
    #: Accepted by the mail server for at least one recipient; no recipient is left to be tried.
    SENT = "sent", _("sent")
    #: Refused permanently by the mail server, impossible to compose, or given up after ``RETRY_FOR``.
    FAILED = "failed", _("failed")
    #: Cancelled before it was sent.
    CANCELLED = "cancelled", _("cancelled")
    #: Not sent before its ``expires_at``.
    EXPIRED = "expired", _("expired")
    #: Every recipient is on the suppression list.
    SUPPRESSED = "suppressed", _("suppressed")
    #: Set aside until a person decides: it may have been sent and ``ON_CRASH`` is ``"hold"``, its workers died or its
    #: outcome stayed in doubt ``MAX_CRASHES`` times, or an interceptor withheld it.
    HELD = "held", _("held")


class DeliveryStatus(models.TextChoices):
    """Delivery status by SparkPost's events; of several recipients, the most serious one."""

    #: Not delivered yet; SparkPost tries again.
    DELAYED = "delayed", _("delayed")
    #: The recipient's server has taken it.
    DELIVERED = "delivered", _("delivered")
    #: It was opened: an image in it was loaded.
    OPENED = "opened", _("opened")
    #: A link in it was followed.
    CLICKED = "clicked", _("clicked")
    #: SparkPost did not try to deliver it: its policy, its suppression list, a cancelled campaign, or content that it
    #: cannot generate.
    REJECTED = "rejected", _("rejected by SparkPost")
    #: The recipient's server refused it, at once or after it had taken it.
    BOUNCED = "bounced", _("bounced")
    #: The recipient unsubscribed through it.
    UNSUBSCRIBED = "unsubscribed", _("unsubscribed")
    #: The recipient reported it as spam.
    COMPLAINED = "complained", _("complained")


class BounceCategory(models.TextChoices):
    """Kind of a bounce, by its class (SparkPost, "Bounce Classification Codes")."""

    #: The address does not exist, or will never accept mail.
    HARD = "hard", _("hard")
    #: A temporary cause: a full mailbox, a timeout.
    SOFT = "soft", _("soft")
    #: The receiving server rejects its content or its sender.
    BLOCK = "block", _("block")
    #: An administrator's decision.
    ADMIN = "admin", _("admin")
    #: Unknown.
    UNDETERMINED = "undetermined", _("undetermined")


class Priority(models.IntegerChoices):
    """Order among the messages that are due; lower numbers are sent first."""

    #: Sent before all other mail, for password resets and codes.
    HIGH = 1, _("high")
    #: The default of ``send_mail()``.
    NORMAL = 5, _("normal")
    #: Sent after all other mail.
    LOW = 9, _("low")


#: States of messages that are still to be sent and that no worker holds.
WAITING = (State.SCHEDULED, State.QUEUED, State.DEFERRED)

#: States from which a person may send a message again.
RETRYABLE = frozenset({State.FAILED, State.CANCELLED, State.EXPIRED, State.SUPPRESSED, State.HELD})

#: Final states: no message leaves them automatically.
FINAL = frozenset({State.SENT, State.FAILED, State.CANCELLED, State.EXPIRED, State.SUPPRESSED, State.HELD})


class PauseScope(models.TextChoices):
    """Kind of mail that a pause holds back."""

    #: All mail that the workers send.
    ALL = "all", _("all sending")
    #: Mail sent by the tasks of one queue, single mail or batches.
    QUEUE = "queue", _("queue")
    #: Mail over one mail backend.
    BACKEND = "backend", _("mail backend")
    #: Mail of one campaign.
    CAMPAIGN = "campaign", _("campaign")
    #: One batch.
    BATCH = "batch", _("batch")


class Retention(IntEnum):
    """What is still kept of a final message, and so which setting limits it: the key of the purge."""

    #: Sensitive content that is dropped at once.
    SENSITIVE = 1
    #: Sensitive content of a failed message: kept for ``RETRY_FOR``, in which a person may send it again.
    SENSITIVE_FAILED = 2
    #: The same for a held message.
    SENSITIVE_HELD = 3
    #: Content that is dropped after ``KEEP_CONTENT``.
    WHOLE = 4
    #: The same for a held message.
    HELD = 5
    #: A message without content, deleted after ``KEEP_MESSAGES``.
    DROPPED = 6
