"""A webhook that is configured."""

from __future__ import annotations

from typing import Any

import pytest

from congressy_mailer.tracking import webhook
from tests.support.webhook import SECRETS


@pytest.fixture
def webhook_secrets(settings: Any) -> None:
    """Who knows one of these may post."""
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "WEBHOOK_SECRETS": SECRETS}
    webhook.forget_refusals()
