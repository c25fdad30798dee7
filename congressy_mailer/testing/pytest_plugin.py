"""Fixtures for pytest, which finds them by the package's entry point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .local_sparkpost.whole import WholeSparkPost
    from .mails import OutboxMail


@pytest.fixture
def mailer_outbox(db: None) -> Callable[[], list[OutboxMail]]:
    """:func:`congressy_mailer.testing.outbox`, with the database that it needs."""
    from . import outbox

    return outbox


@pytest.fixture
def mailer_drop_in(db: None) -> Iterator[None]:
    """What Django sends is queued, as in production: see :func:`congressy_mailer.testing.drop_in`."""
    from . import drop_in

    with drop_in():
        yield


@pytest.fixture
def mailer_sparkpost(tmp_path: Any) -> Iterator[WholeSparkPost]:
    """A SparkPost on this machine: SMTP relay, HTTP API and events. It needs the extra ``local-sparkpost``."""
    from .local_sparkpost.whole import WholeSparkPost

    with WholeSparkPost(directory=tmp_path / "sparkpost") as server:
        yield server
