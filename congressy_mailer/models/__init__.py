"""The tables. Behaviour belongs elsewhere: what may become of a message to :mod:`.outbox`."""

from .choices import BounceCategory, DeliveryStatus, Priority, State
from .identity import new_id
from .messages import (
    ATTACHMENT_FOLDER,
    Attachment,
    Batch,
    Event,
    Mail,
    Message,
    attachment_path,
    attachment_storage,
    shared_attachment_path,
)
from .operations import PeriodicTask, TaskFailure, TransportStatus
from .suppressions import Suppression, SyncCursor
from .tracking import RecipientStatus, WebhookBatch

__all__ = [
    "ATTACHMENT_FOLDER",
    "Attachment",
    "Batch",
    "BounceCategory",
    "DeliveryStatus",
    "PeriodicTask",
    "Event",
    "SyncCursor",
    "Mail",
    "Message",
    "Priority",
    "RecipientStatus",
    "State",
    "Suppression",
    "TaskFailure",
    "TransportStatus",
    "WebhookBatch",
    "attachment_path",
    "attachment_storage",
    "new_id",
    "shared_attachment_path",
]
