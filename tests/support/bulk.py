"""Recipients of a batch, each with a context, and a caller that ends in their midst."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.test import override_settings

from congressy_mailer.models import Batch

LOCMEM = override_settings(EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend")


def people_with_context(count: int, first: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """So many addresses, each with what a template says to that person."""
    return (
        (f"ana{number}@example.com", {"user": {"username": f"Ana {number}"}}) for number in range(first, first + count)
    )


def addresses(batch: Batch) -> list[str]:
    """Who gets the mails of a batch."""
    return sorted(to[0] for to in batch.messages.values_list("to", flat=True))


class Broken(Exception):
    """What ends a caller."""
