"""Pausing and resuming all mail, a queue, a mail backend, a campaign or a batch."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core import mail
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

import congressy_mailer
from congressy_mailer import outbox, pause, resume, send_bulk, send_mail, tasks
from congressy_mailer.delivery.slice import Delivery
from congressy_mailer.delivery.sweep import publish_due
from congressy_mailer.exceptions import InvalidOption
from congressy_mailer.health import check_health
from congressy_mailer.models import Batch, Message, Pause, State
from congressy_mailer.outbox import pausing
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.processes import Process
from tests.conftest import wait_for
from tests.support.commands import mailer
from tests.support.mails import deliver, deliver_slice, queue, state, states, stored

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("english")]

LOCMEM = {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}


class TestSingleMail:
    pytestmark = pytest.mark.usefixtures("published")

    def test_it_is_put_back_without_a_time_at_which_anybody_looks_at_it(self) -> None:
        message = send_mail("x", "y", to="ana@example.com")
        pause(reason="wrong link", by="eva")
        delivery = Delivery(outbox.new_claim_token("task"))
        delivery.run([message.pk], redelivered=False)
        message.refresh_from_db()
        assert (message.state, message.due_at, message.sweep_at, message.attempts) == ("queued", None, None, 0)
        assert (mail.outbox, delivery.counts["paused"], delivery.result.unfinished) == ([], 1, [])
        assert outbox.claim_waiting(outbox.new_claim_token("task"), 10) == []
        assert outbox.sweep(timezone.now() + timedelta(hours=1)) == []

    def test_resuming_makes_it_due_and_publishes_it(self, published: list[str]) -> None:
        message = send_mail("x", "y", to="ana@example.com")
        pause()
        deliver([message])
        published.clear()
        assert resume()
        assert published == ["deliver", "sweep"]
        message.refresh_from_db()
        assert message.due_at is not None
        deliver([message])
        assert state(message) == State.SENT
        assert not resume()

    def test_a_resumption_that_is_rolled_back_changes_nothing(self, published: list[str]) -> None:
        message = send_mail("x", "y", to="ana@example.com")
        pause()
        deliver([message])
        with transaction.atomic():
            resume()
            transaction.set_rollback(True)
        deliver([message])
        assert state(message) == State.QUEUED

    def test_the_end_of_its_validity_still_counts(self) -> None:
        expires_at = timezone.now() + timedelta(hours=1)
        message = send_mail("x", "y", to="ana@example.com", expires_at=expires_at)
        pause()
        deliver([message])
        message.refresh_from_db()
        assert message.due_at == expires_at
        Message.objects.update(expires_at=timezone.now() - timedelta(seconds=1), due_at=timezone.now())
        outbox.sweep(timezone.now() + timedelta(seconds=1))
        assert state(message) == State.EXPIRED

    def test_it_can_be_cancelled_and_sent_again_while_it_is_paused(self) -> None:
        message = send_mail("x", "y", to="ana@example.com")
        pause()
        deliver([message])
        assert message.cancel()
        message.retry()
        message.refresh_from_db()
        assert (message.state, message.pause_id) == (State.QUEUED, None)

    def test_what_was_refused_before_is_tried_for_as_long_as_any_other(self) -> None:
        message = send_mail("x", "y", to="ana@example.com")
        long_ago = timezone.now() - timedelta(days=9)
        Message.objects.update(state=State.DEFERRED, due_at=long_ago, first_attempt_at=long_ago)
        pause()
        deliver([message])
        message.refresh_from_db()
        assert message.first_attempt_at is None

    def test_a_worker_that_has_not_heard_of_the_resumption_leaves_nothing_behind(self) -> None:
        message = send_mail("x", "y", to="ana@example.com")
        old = pause()
        token = outbox.new_claim_token("task")
        outbox.claim([message.pk], token)
        resume()
        outbox.hold(token, [message.pk], old)
        message.refresh_from_db()
        assert (message.pause_id, message.due_at is not None) == (None, True)

    def test_a_sweep_releases_what_a_resumption_that_died_has_left(self, published: list[str]) -> None:
        messages = stored(queue(3))
        pause()
        deliver(messages)
        Pause.objects.update(resumed_at=timezone.now() - timedelta(minutes=2))
        outbox.forget_pauses()
        published.clear()
        publish_due(None)
        assert published == ["deliver"]
        assert not Pause.objects.exists()
        deliver(messages)
        assert set(states(messages)) == {State.SENT}

    def test_a_pause_is_known_until_all_that_it_held_back_is_released(self) -> None:
        message = send_mail("x", "y", to="ana@example.com")
        batch = send_bulk(["eva@example.com"], subject="x", message="y")
        pause()
        deliver([message])
        deliver_slice(batch)
        Pause.objects.update(resumed_at=timezone.now() - timedelta(minutes=2))
        outbox.forget_pauses()
        # As where others hold both rows.
        outbox.forget_ended_pauses()
        assert outbox.release_messages(outbox.ended_pauses()) == [message.pk]
        outbox.forget_ended_pauses()
        assert outbox.release_batches(outbox.ended_pauses()) == 1
        outbox.forget_ended_pauses()
        assert not Pause.objects.exists()

    def test_looking_for_pauses_costs_no_query_for_each_mail(self) -> None:
        messages = [send_mail("x", "y", to=f"ana{number}@example.com") for number in range(20)]
        outbox.forget_pauses()
        with CaptureQueriesContext(connection) as captured:
            deliver(messages)
        assert len(mail.outbox) == 20
        asked = [query["sql"] for query in captured if Pause._meta.db_table in query["sql"]]
        assert len(asked) <= 2


class TestWhatIsPaused:
    pytestmark = pytest.mark.usefixtures("published")

    def test_a_campaign(self) -> None:
        paused = send_mail("x", "y", to="ana@example.com", campaign="carnaval")
        other = send_mail("x", "y", to="eva@example.com", campaign="natal")
        pause(campaign="carnaval")
        deliver([paused, other])
        assert states([paused, other]) == [State.QUEUED, State.SENT]

    def test_a_queue(self) -> None:
        message = send_mail("x", "y", to="ana@example.com")
        batch = send_bulk(["eva@example.com"], subject="x", message="y")
        pause(queue="mailer")
        deliver([message])
        deliver_slice(batch)
        assert (state(message), batch.progress().sent) == (State.QUEUED, 1)

    def test_a_batch_as_a_whole(self, published: list[str]) -> None:
        batches = [send_bulk(["ana@example.com", "eva@example.com"], subject="x", message="y") for _ in range(2)]
        pause(batch=batches[0])
        assert deliver_slice(batches[0]).continue_at is None
        deliver_slice(batches[1])
        assert [batch.progress().sent for batch in batches] == [0, 2]
        batches[0].refresh_from_db()
        assert batches[0].due_at is None
        assert outbox.claim_due_batches() == []
        published.clear()
        resume(batch=str(batches[0].pk))
        assert published == ["sweep"]
        ((key, generation),) = outbox.claim_due_batches()
        deliver_slice(Batch.objects.get(pk=key))
        assert batches[0].progress().sent == 2

    def test_a_batch_that_expires_while_it_is_paused(self) -> None:
        batch = send_bulk(["ana@example.com"], subject="x", message="y", expires_at=timezone.now() + timedelta(hours=1))
        pause()
        deliver_slice(batch)
        batch.refresh_from_db()
        assert batch.due_at == batch.expires_at
        Batch.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        assert not outbox.heartbeat(batch.pk, batch.generation)
        assert batch.progress().states == {State.EXPIRED: 1}

    def test_a_mail_backend_and_no_other(self, settings: Any) -> None:
        if hasattr(settings, "MAILERS"):
            settings.MAILERS = {**settings.MAILERS, "other": LOCMEM}
        else:
            settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "TRANSPORTS": {"other": LOCMEM}}
        one = send_mail("x", "y", to="ana@example.com")
        two = send_mail("x", "y", to="ana@example.com", using="other")
        pause(using="default")
        deliver([one, two])
        assert states([one, two]) == [State.QUEUED, State.SENT]
        resume(using="default")
        pause(using="other")
        three = send_mail("x", "y", to="ana@example.com", using="other")
        deliver([one, three])
        assert states([one, three]) == [State.SENT, State.QUEUED]

    def test_another_mail_backend_takes_over_for_one_that_is_paused(self, settings: Any) -> None:
        values = {**settings.CONGRESSY_MAILER, "FAILOVER": ["other"]}
        if hasattr(settings, "MAILERS"):
            settings.MAILERS = {**settings.MAILERS, "other": LOCMEM}
        else:
            values["TRANSPORTS"] = {"other": LOCMEM}
        settings.CONGRESSY_MAILER = values
        pause(using="default")
        message = send_mail("x", "y", to="ana@example.com")
        deliver([message])
        message.refresh_from_db()
        assert (message.state, message.route) == (State.SENT, "other")
        pause(using="other")
        message = send_mail("x", "y", to="ana@example.com")
        deliver([message])
        assert state(message) == State.QUEUED

    def test_what_another_pause_holds_back_stays(self) -> None:
        message = send_mail("x", "y", to="ana@example.com", campaign="carnaval")
        pause()
        pause(campaign="carnaval")
        deliver([message])
        resume()
        deliver([message])
        assert state(message) == State.QUEUED
        resume(campaign="carnaval")
        deliver([message])
        assert state(message) == State.SENT

    def test_a_pause_that_is_there_stays_as_it_is(self) -> None:
        first = pause(reason="one", by="ana")
        assert pause(reason="two", by="eva").pk == first.pk
        assert Pause.objects.get().reason == "one"

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"queue": "mailer", "campaign": "x"}, "not queue and campaign"),
            ({"queue": "celery"}, "'celery' is none of the mailer's"),
            ({"using": "nowhere"}, "there is no mail backend 'nowhere'"),
            ({"batch": "7"}, "no id of a batch"),
            ({"batch": UUID(int=7)}, "there is no batch"),
            ({"campaign": ""}, "1 to 64"),
        ],
    )
    def test_what_is_not_there_is_refused(self, arguments: Any, words: str) -> None:
        with pytest.raises(InvalidOption, match=words):
            pause(**arguments)
        assert not Pause.objects.exists()


class TestCommands:
    pytestmark = pytest.mark.usefixtures("published")

    def test_they_say_what_is_paused_by_whom_and_why(self) -> None:
        message = send_mail("x", "y", to="ana@example.com")
        out, _, status = mailer("pause", "--reason", "wrong link", "--by", "eva")
        assert status == 0
        assert out.startswith("Paused: all sending, since ")
        assert out.endswith(", by eva: wrong link (0 messages wait, 0 batches wait)\n")
        deliver([message])
        tasks.sweep(0)
        out, _, status = mailer("health")
        assert (status, "(1 message waits, 0 batches wait)" in out, "Mail is moving" in out) == (0, True, False)
        assert "mailer: nothing waits." in out
        (paused,) = json.loads(mailer("health", "--json")[0])["paused"]
        assert (paused["by"], paused["messages"], paused["scope"]) == ("eva", 1, "all")
        assert mailer("resume") == ("Resumed. What waited is sent from now on.\n", "", 0)
        assert mailer("resume") == ("", "It was not paused.", 1)
        assert mailer("pause", "--queue", "celery")[2] == 2

    def test_a_paused_queue_is_not_called_slow(self) -> None:
        message = send_mail("x", "y", to="ana@example.com")
        batch = send_bulk(["eva@example.com"], subject="x", message="y")
        pause()
        deliver([message])
        deliver_slice(batch)
        tasks.sweep(0)
        long_ago = timezone.now() - timedelta(days=1)
        Message.objects.update(queued_at=long_ago)
        Batch.objects.update(created_at=long_ago)
        assert check_health().ok
        assert [(held.messages, held.batches) for held in check_health().paused] == [(1, 1)]


class TestAdmin:
    pytestmark = pytest.mark.usefixtures("published")

    def test_somebody_with_the_permissions_pauses_and_resumes(self, admin_client: Client) -> None:
        page = reverse("admin:congressy_mailer_pause_add")
        assert admin_client.get(page).status_code == 200
        response = admin_client.post(page, {"scope": "campaign", "name": "carnaval", "reason": "wrong link"})
        assert response.status_code == 302
        new = Pause.objects.get()
        assert (new.scope, new.name, new.paused_by, new.reason) == ("campaign", "carnaval", "admin", "wrong link")
        changelist = reverse("admin:congressy_mailer_pause_changelist")
        assert b"wrong link" in admin_client.get(changelist).content
        admin_client.post(changelist, {"action": "delete_selected", "_selected_action": [str(new.pk)]})
        assert b"wrong link" not in admin_client.get(changelist).content
        assert not outbox.list_pauses().exists()
        assert [entry.action_flag for entry in LogEntry.objects.order_by("pk")] == [1, 3]

    def test_the_page_of_a_pause_offers_to_resume_and_not_to_delete(self, admin_client: Client) -> None:
        one = pause(campaign="carnaval", reason="wrong link")
        page = admin_client.get(reverse("admin:congressy_mailer_pause_change", args=[one.pk])).content.decode()
        resume_url = reverse("admin:congressy_mailer_pause_delete", args=[one.pk])
        assert re.search(rf'<a href="{resume_url}">\s*Resume', page)
        assert "deletelink" not in page
        asked = admin_client.get(resume_url).content.decode()
        assert "wrong link" in asked
        assert "elete" not in re.sub(r"<[^>]+>", "", asked)
        done = admin_client.post(resume_url, {"post": "yes"}, follow=True).content.decode()
        assert "1 pause ended." in done
        assert not outbox.list_pauses().exists()
        assert Pause.objects.get().resumed_at is not None

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ({"scope": "all", "name": "x"}, "Empty where all sending is paused"),
            ({"scope": "queue", "name": ""}, "Say which one"),
            ({"scope": "backend", "name": "nowhere"}, "there is no mail backend"),
        ],
    )
    def test_what_is_not_there_is_refused(self, admin_client: Client, values: Any, words: str) -> None:
        response = admin_client.post(reverse("admin:congressy_mailer_pause_add"), values)
        assert words in response.content.decode()
        assert not Pause.objects.exists()

    def test_nobody_else_does(self, client: Client) -> None:
        user = User.objects.create_user("ana", password="x", is_staff=True)
        user.user_permissions.add(Permission.objects.get(codename="view_pause"))
        client.force_login(user)
        new = pause()
        changelist = reverse("admin:congressy_mailer_pause_changelist")
        assert client.get(changelist).status_code == 200
        assert client.post(reverse("admin:congressy_mailer_pause_add"), {"scope": "all"}).status_code == 403
        client.post(changelist, {"action": "delete_selected", "_selected_action": [str(new.pk)]})
        resume_url = reverse("admin:congressy_mailer_pause_delete", args=[new.pk])
        assert (
            resume_url not in client.get(reverse("admin:congressy_mailer_pause_change", args=[new.pk])).content.decode()
        )
        assert client.post(resume_url, {"post": "yes"}).status_code == 403
        assert outbox.list_pauses().count() == 1


def test_real_workers_stop_and_go_on_over_a_restart(
    start_worker: Callable[..., Process], smtp_server: LocalSparkPost
) -> None:
    worker = start_worker()
    send_mail("x", "y", to="first@example.com")
    wait_for(lambda: len(smtp_server.mailbox) == 1, what="the first mail")
    congressy_mailer.pause(reason="a test", by="ana")
    # From then on no worker goes by what it has known before.
    time.sleep(pausing._KNOWN_FOR)
    batch = send_bulk((f"ana{number}@example.com" for number in range(30)), subject="x", message="y")
    singles = [send_mail("x", "y", to=f"eva{number}@example.com") for number in range(5)]

    def is_held_back() -> bool:
        return Message.objects.filter(pause__isnull=False).count() == 5 and Batch.objects.get().pause_id is not None

    wait_for(is_held_back, what="the mail to be put back")
    worker.stop()
    start_worker()
    tasks.sweep(0)
    assert check_health().paused[0].reason == "a test"
    assert len(smtp_server.mailbox) == 1
    congressy_mailer.resume(by="ana")
    wait_for(lambda: batch.progress().sent == 30, 60, "the batch")
    wait_for(lambda: set(states(singles)) == {State.SENT}, 60, "the single mails")
    assert len(smtp_server.mailbox) == 36


@pytest.mark.parametrize("options", [{}])
def test_mail_of_other_apps_is_held_back_too(options: dict[str, Any], published: list[str]) -> None:
    from congressy_mailer.testing import deliver_all, drop_in

    with drop_in(**options):
        mail.send_mail("x", "y", "ana@example.com", ["eva@example.com"])
        pause()
        (message,) = deliver_all()
        assert (message.state, mail.outbox) == (State.QUEUED, [])
        resume()
        (message,) = deliver_all()
        assert message.state == State.SENT


def test_a_pause_holds_back_http_too(settings: Any, published: list[str]) -> None:
    backend = {"BACKEND": "congressy_mailer.sparkpost.backend.EmailBackend"}
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "SPARKPOST_API_KEY": "x"}
    if hasattr(settings, "MAILERS"):
        settings.MAILERS = {**settings.MAILERS, "http": backend}
    else:
        settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "TRANSPORTS": {"http": backend}}
    pause(using="http")
    message = send_mail("x", "y", to="ana@example.com", using="http")
    batch = send_bulk(["ana@example.com"], subject="x", message="y", using="http")
    deliver([message])
    deliver_slice(batch)
    assert (state(message), batch.progress().sent) == (State.QUEUED, 0)
    assert [sum(held.values()) for held in outbox.count_paused()] == [1, 1]
