"""The tables. Behaviour belongs elsewhere: what may become of a message to :mod:`.outbox`."""

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

if apps.apps_ready and not apps.is_installed("congressy_mailer"):
    # Django would speak of a model without an app_label.
    raise ImproperlyConfigured('Add "congressy_mailer" to INSTALLED_APPS, and run "python manage.py migrate".')

from .attachments import Attachment
from .batches import Batch
from .choices import BounceCategory, DeliveryStatus, PauseScope, Priority, Retention, State
from .events import Event
from .files import ATTACHMENT_FOLDER, Installation, StoredFile, attachment_storage
from .identity import new_id
from .mail import Mail
from .messages import BLOCKED, NO_BATCH, PAUSED, Message
from .metrics import CountRollup, CountSample, Dashboard
from .operations import Pause, PeriodicTask, TaskFailure, TransportStatus
from .search import SearchKey
from .suppressions import Suppression, SuppressionRemoval, SyncCursor
from .tracking import RecipientStatus, WebhookBatch
from .workers import Worker

__all__ = [
    "ATTACHMENT_FOLDER",
    "BLOCKED",
    "NO_BATCH",
    "PAUSED",
    "Attachment",
    "Batch",
    "BounceCategory",
    "CountRollup",
    "CountSample",
    "Dashboard",
    "DeliveryStatus",
    "Pause",
    "PauseScope",
    "PeriodicTask",
    "Event",
    "Installation",
    "SyncCursor",
    "Mail",
    "Message",
    "Priority",
    "RecipientStatus",
    "Retention",
    "SearchKey",
    "State",
    "StoredFile",
    "Suppression",
    "SuppressionRemoval",
    "TaskFailure",
    "TransportStatus",
    "WebhookBatch",
    "Worker",
    "attachment_storage",
    "new_id",
]
