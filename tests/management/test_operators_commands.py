"""What an operator asks for in a terminal: the state of the mail, single messages, a test mail."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from congressy_mailer import pause, periodic, send_bulk, send_mail
from congressy_mailer.models import Message, State, TransportStatus
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.processes import Process
from tests.support.commands import mailer
from tests.support.mails import deliver, queue, states, stored

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("english")]


class TestStatus:
    def test_everything_is_on_one_screen(self, broker: str) -> None:
        periodic.mark_run(periodic.SWEEP)
        waiting = send_mail("x", "y", to="ana@example.com")
        Message.objects.filter(pk=waiting.pk).update(queued_at=timezone.now() - timedelta(seconds=95))
        send_mail("x", "y", to="ana@example.com", send_at=timezone.now() + timedelta(hours=1))
        send_bulk(["eva@example.com"], subject="x", message="y")
        pause(campaign="carnaval", reason="wrong link", by="eva")
        out, complaint, status = mailer("status")
        assert (complaint, status) == ("", 0)
        lines = out.splitlines()
        assert lines[0] == "No problem found."
        assert lines[1].startswith("Paused: campaign carnaval, since ")
        assert max(len(line) for line in lines[2:] if not line.startswith("Mail backend")) <= 80
        queue, bulk = (" ".join(line.split()) for line in lines if line.startswith("mailer"))
        # The seconds go on until they are printed.
        assert re.fullmatch("mailer 1 [1-9] min [0-9]+ s 1", queue)
        assert re.fullmatch("mailer.bulk 1 batch [0-9]+ s 1", bulk)
        assert "scheduled   queued   sending   deferred   held" in out
        assert "Mail backend default: mail is only kept in memory, and reaches nobody: " in out

    def test_it_is_there_for_machines(self, broker: str) -> None:
        send_mail("x", "y", to="ana@example.com")
        found = json.loads(mailer("status", "--json")[0])
        assert found["tasks"] == {"mailer": 1, "mailer.bulk": 0}
        assert found["states"]["queued"] == 1
        assert found["health"]["problems"][0].startswith("No worker has ever swept")
        assert found["outcomes"]["5"] == {"accepted": 0, "deferred": 0, "failed": 0}

    def test_a_broker_that_is_away_does_not_hold_it_up(
        self, celery_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        celery_settings(broker_url="redis://localhost:1/0", broker_write_url="redis://localhost:1/0")
        waits: list[float] = []
        monkeypatch.setattr("kombu.utils.functional.sleep", waits.append)
        out, _, status = mailer("status")
        # Nothing waits between two tries: there is one.
        assert waits == []
        assert status == 0
        assert "The broker cannot be queried: " in out
        assert "1 problem:\n  - No worker has ever swept" in out

    def test_it_looks_through_no_finished_message(self, published: list[str]) -> None:
        """By the plans of PostgreSQL: none reads the table of messages whole."""
        if connection.vendor != "postgresql":
            # The others' plans are told in other words; their indexes are the same.
            return
        Message.objects.bulk_create(
            Message(
                message_id=f"<{number}@x>", from_email="a@example.com", to=["b@example.com"], state=State.SENT,
                created_at=timezone.now(), finished_at=timezone.now(), address="b@example.com",
            )
            for number in range(5000)
        )  # fmt: skip
        TransportStatus.objects.create(
            unavailable_since=timezone.now(), next_try_at=timezone.now(), reason="Connection refused"
        )
        from congressy_mailer.management.status import read_status

        plans: list[str] = []

        def explain(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            if sql.startswith("SELECT") and '"congressy_mailer_message"' in sql:
                with connection.connection.cursor() as cursor:
                    cursor.execute("EXPLAIN " + sql, params)
                    plans.append("\n".join(row[0] for row in cursor.fetchall()))
            return execute(sql, params, many, context)

        with connection.cursor() as cursor:
            cursor.execute("ANALYZE congressy_mailer_message")
        with connection.execute_wrapper(explain):
            read_status()
        assert len(plans) > 10
        assert [plan for plan in plans if "Seq Scan on congressy_mailer_message" in plan] == []


class TestShow:
    pytestmark = pytest.mark.usefixtures("published")

    def test_what_happened_is_told_in_order(self) -> None:
        message = send_mail("Boleto", "y", to="Ana <ana@example.com>", campaign="carnaval")
        deliver([message])
        message.refresh_from_db()
        for which in (str(message.pk), message.pk.hex, message.message_id, "ana@example.com"):
            out, _, status = mailer("show", which)
            assert status == 0
            assert f"{message.pk}  sent" in out
            for words in ("Ana <ana@example.com>", "Boleto", "carnaval", message.message_id):
                assert words in out
            told = [line.split("  ")[-1] for line in out.splitlines() if line.startswith("  ")]
            assert told[-3:] == ["stored", "ready to be sent", "accepted by the mail server"]

    def test_several_are_listed(self) -> None:
        for _ in range(22):
            send_mail("x", "y", to="ana@example.com")
        out, _, _ = mailer("show", "ana@example.com")
        assert out.count("ana@example.com") == 20
        assert out.endswith("2 more are not listed.\n")
        assert len(json.loads(mailer("show", "ana@example.com", "--json")[0])) == 20

    def test_a_sensitive_mail_is_not_told(self) -> None:
        message = send_mail("Your code is 7711", "y", to="ana@example.com", sensitive=True)
        out, _, _ = mailer("show", str(message.pk))
        assert "7711" not in out
        assert "(confidential)" in out
        assert "7711" not in mailer("show", str(message.pk), "--json")[0]

    def test_control_characters_do_not_reach_the_terminal(self) -> None:
        message = send_mail("x", "y", to="ana@example.com")
        Message.objects.update(reply="\x1b[31mred")
        assert "\x1b" not in mailer("show", str(message.pk))[0]

    def test_nothing_is_found(self) -> None:
        assert mailer("show", "eva@example.com") == ("", "No message is found by eva@example.com.", 1)


class TestMovingOn:
    pytestmark = pytest.mark.usefixtures("published")

    def test_failed_messages_are_sent_again(self) -> None:
        messages = stored(queue(3))
        Message.objects.update(state=State.FAILED, finished_at=timezone.now(), due_at=None)
        assert mailer("retry", str(messages[0].pk))[0] == "1 message is sent again.\n"
        assert mailer("retry", "--state", "failed")[0] == "2 messages are sent again.\n"
        assert set(states(messages)) == {State.QUEUED}

    def test_only_those_of_a_time_and_so_many(self) -> None:
        for hours in (1, 2, 30):
            message = send_mail("x", "y", to="ana@example.com")
            ended = timezone.now() - timedelta(hours=hours)
            Message.objects.filter(pk=message.pk).update(state=State.FAILED, finished_at=ended, due_at=None)
        since = (timezone.localtime() - timedelta(hours=10)).replace(tzinfo=None).isoformat()
        assert mailer("retry", "--state", "failed", "--limit", "1")[0].startswith("1 ")
        assert mailer("retry", "--state", "failed", f"--since={since}")[0].startswith("1 ")
        assert Message.objects.filter(state=State.FAILED).count() == 1

    def test_what_was_set_aside_is_released_and_not_retried(self) -> None:
        message = send_mail("x", "y", to="ana@example.com")
        Message.objects.update(state=State.HELD, finished_at=timezone.now(), due_at=None)
        out, complaint, status = mailer("retry", str(message.pk))
        assert (out, status) == ("0 messages are sent again.\n", 1)
        assert "It is set aside: look at it with show, and release it." in complaint
        assert mailer("release", str(message.pk)) == ("1 message was released.\n", "", 0)
        assert mailer("release", str(message.pk))[2] == 1

    def test_messages_and_batches_are_taken_back(self) -> None:
        message = send_mail("x", "y", to="ana@example.com")
        batch = send_bulk(["ana@example.com", "eva@example.com"], subject="x", message="y")
        assert mailer("cancel", message.message_id) == ("1 message was cancelled.\n", "", 0)
        assert mailer("cancel", str(message.pk))[1].endswith(
            "It is cancelled, and cannot be cancelled.\n1 message was left as it is."
        )
        assert mailer("cancel", "--batch", str(batch.pk))[0] == "2 messages were cancelled.\n"
        assert mailer("cancel", "--batch", str(message.pk))[2] == 2

    @pytest.mark.parametrize("arguments", [["retry"], ["cancel", "ana@example.com"], ["cancel", "7"]])
    def test_a_person_is_no_message(self, arguments: list[str]) -> None:
        send_mail("x", "y", to="ana@example.com")
        assert mailer(*arguments)[2] == 2
        assert Message.objects.get().state == State.QUEUED


class TestSendTest:
    def test_a_real_worker_sends_it(self, start_worker: Callable[..., Process], smtp_server: LocalSparkPost) -> None:
        start_worker()
        out, complaint, status = mailer("send-test", "ana@example.com")
        assert (complaint, status) == ("", 0)
        assert "Accepted after " in out
        assert [received.recipients for received in smtp_server.mailbox] == [("ana@example.com",)]

    def test_without_a_worker_it_says_so(self, published: list[str]) -> None:
        out, complaint, status = mailer("send-test", "ana@example.com", "--wait", "0")
        assert (out.startswith("Stored as "), status) == (True, 1)
        assert complaint == "After 0 s it is queued. See what manage.py mailer doctor says."

    def test_an_address_that_is_none(self) -> None:
        assert mailer("send-test", "ana")[2] == 2
        assert not Message.objects.exists()
