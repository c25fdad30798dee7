"""The outbox in Django's admin: what became of a mail, and what may be done about it."""

from __future__ import annotations

from typing import Any

from .batches import BatchAdmin
from .dashboard import DashboardAdmin
from .messages import MessageAdmin
from .pauses import PauseAdmin
from .suppressions import SuppressionAdmin
from .webhooks import WebhookBatchAdmin

__all__: list[Any] = [
    "BatchAdmin",
    "DashboardAdmin",
    "MessageAdmin",
    "PauseAdmin",
    "SuppressionAdmin",
    "WebhookBatchAdmin",
]
