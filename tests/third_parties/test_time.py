"""Tests of a host that hold the time, with each of the packages that can."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import freezegun
import pytest
import time_machine
from django.utils import timezone

from congressy_mailer import send_bulk, send_mail
from congressy_mailer.models import State, clock
from congressy_mailer.testing import deliver_all, fail_next

pytestmark = [pytest.mark.database, pytest.mark.django_db]

MORNING = datetime(2031, 5, 7, 9, 0, tzinfo=UTC)


def frozen_by_time_machine(moment: datetime) -> AbstractContextManager[Any]:
    return time_machine.travel(moment, tick=False)


HOLDERS = [freezegun.freeze_time, time_machine.travel, frozen_by_time_machine]


@pytest.mark.parametrize("moment", [MORNING, MORNING.replace(year=2019)], ids=["ahead", "behind"])
@pytest.mark.parametrize("held", HOLDERS)
class TestTime:
    def test_is_the_tests(self, held: Callable[[datetime], AbstractContextManager[Any]], moment: datetime) -> None:
        # The database has told its time before.
        assert abs(clock.now().timestamp() - time.time()) < 60
        with held(moment):
            assert clock.now() - moment < timedelta(minutes=1)
            send_mail("x", "y", to="ana@example.com", send_at=moment + timedelta(hours=1))
            send_bulk(["eva@example.com"], subject="x", message="y", send_at=moment + timedelta(hours=2))
            assert deliver_all() == []
        with held(moment + timedelta(minutes=90)):
            (first,) = deliver_all()
            assert first.sent_at is not None
            assert timedelta(0) <= first.sent_at - moment - timedelta(minutes=90) < timedelta(minutes=1)
        with held(moment + timedelta(hours=3)):
            assert [message.state for message in deliver_all()] == [State.SENT]
        assert abs(clock.now().timestamp() - time.time()) < 60

    def test_passes_within_it(self, held: Callable[[datetime], AbstractContextManager[Any]], moment: datetime) -> None:
        with held(moment):
            fail_next("451 4.7.1 Try later")
            send_mail("x", "y", to="ana@example.com")
            expiring = send_mail(
                "x", "y", to="eva@example.com", send_at=moment + timedelta(hours=1),
                expires_at=moment + timedelta(hours=2),
            )  # fmt: skip
            assert [message.state for message in deliver_all()] == [State.DEFERRED]
            retried, scheduled = deliver_all(within=timedelta(hours=1, minutes=1))
            assert (retried.state, retried.attempts, scheduled.state) == (State.SENT, 2, State.SENT)
            assert scheduled.pk == expiring.pk
            assert timezone.now() - moment < timedelta(minutes=1)

    def test_ends_what_expires(self, held: Callable[[datetime], AbstractContextManager[Any]], moment: datetime) -> None:
        with held(moment):
            send_mail("x", "y", to="ana@example.com", expires_at=moment + timedelta(hours=1))
        with held(moment + timedelta(hours=2)):
            assert [message.state for message in deliver_all()] == [State.EXPIRED]
