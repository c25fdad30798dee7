"""Posts to the webhook of the tests."""

from __future__ import annotations

import base64
from typing import Any

from django.test import Client
from django.utils import timezone

from congressy_mailer.models import WebhookBatch
from congressy_mailer.tracking import inbox, processing

URL = "/mailer/sparkpost/events/"
SECRETS = ["basic sparkpost:s3cret:with-colon", "bearer a-token", "token an-old-token"]
BEARER = {"HTTP_AUTHORIZATION": "Bearer a-token"}


def post(body: bytes, headers: dict[str, str] = BEARER, url: str = URL, **more: str) -> int:
    """Post events, and return the status of the answer."""
    given: dict[str, Any] = {**headers, **more}
    response = Client(raise_request_exception=False).post(url, body, content_type="application/json", **given)
    return response.status_code


def basic(login: str) -> dict[str, str]:
    """Headers of a user and password."""
    return {"HTTP_AUTHORIZATION": f"Basic {base64.b64encode(login.encode()).decode()}"}


def process_all() -> None:
    """Process all that waits, as if the time for it had come."""
    WebhookBatch.objects.exclude(due_at=None).update(due_at=timezone.now())
    for ticket in inbox.due_batches():
        processing.process(ticket)
