"""Whether mail is moving, as monitoring asks for it; and what one worker does for all."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import OperationalError
from django.test import override_settings
from django.utils import timezone, translation

from congressy_mailer import Priority, outbox, periodic, send_bulk, send_mail, tasks
from congressy_mailer.broker.sending import publish_sweep
from congressy_mailer.health import check_health
from congressy_mailer.management.commands.mailer import Command
from congressy_mailer.models import Batch, Message, PeriodicTask, State, TaskFailure, TransportStatus
from tests.conftest import database_url, run_concurrently
from tests.support.commands import mailer
from tests.support.forked import run_module
from tests.support.mails import deliver, queue, queue_message

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.database,
    pytest.mark.usefixtures("english", "published"),
]


def swept(**ago: float) -> None:
    periodic.mark_run(periodic.SWEEP, timezone.now() - timedelta(**ago))


def unavailable(**values: Any) -> None:
    now = timezone.now()
    TransportStatus.objects.create(
        unavailable_since=now - timedelta(minutes=3),
        next_try_at=now + timedelta(minutes=1),
        **{"reason": "Connection refused", **values},
    )


def test_mail_is_moving_when_a_worker_swept_lately() -> None:
    tasks.sweep(time.time())
    health = check_health()
    assert (health.ok, health.problems, health.overdue, health.unavailable) == (True, [], 0, [])
    assert health.last_sweep is not None
    out, complaint, status = mailer("health")
    assert (complaint, status) == ("", 0)
    assert out.startswith("Mail is moving. Last sweep: 20")


@pytest.mark.email_settings
def test_a_backend_that_reaches_nobody_is_named_without_a_failure(settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    tasks.sweep(time.time())
    out, complaint, status = mailer("health")
    assert (complaint, status) == ("", 0)
    where = "is only printed, and reaches nobody: django.core.mail.backends.console.EmailBackend"
    assert f"Mail backend default: mail {where}" in out
    assert json.loads(mailer("health", "--json")[0])["reaches_nobody"] == {"default": where}
    # Beside the problems, of which it is none.
    swept(hours=1)
    out, complaint, status = mailer("health")
    assert (out, status) == (f"Mail backend default: mail {where}\n", 1)
    assert (complaint.startswith("No worker has swept since 20"), "nobody" in complaint) == (True, False)
    out, complaint, status = mailer("health", "--json")
    assert (json.loads(out)["ok"], json.loads(out)["reaches_nobody"], status) == (False, {"default": where}, 1)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    assert "Mail backend" not in mailer("health")[0]
    assert json.loads(mailer("health", "--json")[0])["reaches_nobody"] == {}


def test_no_worker_was_ever_there() -> None:
    _, complaint, status = mailer("health")
    assert status == 1
    assert complaint == "No worker has ever swept: start one with celery -A project worker."


def test_a_worker_that_takes_nothing_from_the_broker_is_noticed(published: list[str]) -> None:
    swept(seconds=61)
    # It lives, and publishes its sweep as ever: only what comes back out of the broker counts.
    assert publish_sweep()
    assert published == ["sweep"]
    assert not check_health().ok
    _, complaint, status = mailer("health")
    assert status == 1
    assert complaint.startswith("No worker has swept since 20")
    assert complaint.endswith("none runs, none serves the queue 'mailer', or none reaches the broker.")
    tasks.sweep(time.time())
    assert check_health().ok


def test_a_worker_that_is_busy_with_a_long_queue_is_well() -> None:
    swept(seconds=61)
    key = send_mail("x", "y", to="ana@example.com").pk
    task = tasks.deliver
    task.push_request(id="busy", is_eager=False, delivery_info={})
    try:
        task.run([str(key)])
    finally:
        task.pop_request()
    assert Message.objects.get(pk=key).state == State.SENT
    assert check_health().ok


@override_settings(CONGRESSY_MAILER={"SWEEP_INTERVAL": timedelta(minutes=5)})
def test_patience_follows_the_interval_of_the_sweeps() -> None:
    swept(minutes=19)
    assert check_health().ok
    swept(minutes=21)
    assert not check_health().ok


@pytest.mark.parametrize("state", [State.SCHEDULED, State.DEFERRED, State.SENDING])
def test_messages_that_nobody_looks_at_are_noticed(state: State) -> None:
    swept(seconds=1)
    ids = queue(2)
    late = timezone.now() - timedelta(seconds=61)
    Message.objects.filter(pk=ids[0]).update(state=state, due_at=late)
    assert mailer("health")[1:] == ("1 message is due and has not been looked at for 60 seconds.", 1)
    Message.objects.update(state=state, due_at=late)
    assert check_health().overdue == 2
    assert check_health().problems == ["2 messages are due and have not been looked at for 60 seconds."]
    Message.objects.update(due_at=timezone.now() - timedelta(seconds=30))
    assert check_health().ok


def test_a_long_queue_is_no_problem() -> None:
    swept(seconds=1)
    send_mail("x", "y", to="ana@example.com")
    Message.objects.update(due_at=timezone.now() - timedelta(hours=2))
    assert check_health().ok


def test_a_backend_that_cannot_be_used_is_noticed_while_mail_waits_for_it() -> None:
    swept(seconds=1)
    unavailable()
    assert check_health().ok
    send_mail("x", "y", to="ana@example.com")
    (problem,) = check_health().problems
    assert problem.startswith("The mail backend 'default' is unavailable since 20")
    assert ", tried once, next at 20" in problem
    assert problem.endswith(": Connection refused")
    TransportStatus.objects.update(failures=3)
    assert ", tried 3 times, next at" in check_health().problems[0]
    assert mailer("health")[2] == 1
    Message.objects.update(state=State.CANCELLED)
    assert check_health().ok


@pytest.mark.parametrize("sender", ["org@evento.example", "Feira <org@Evento.Example>"])
def test_a_sender_that_is_refused_is_noticed_while_its_mail_waits(sender: str) -> None:
    swept(seconds=1)
    unavailable(sender_domain="evento.example", reason="550 5.7.1 Unconfigured Sending Domain <evento.example>")
    send_mail("x", "y", to="ana@example.com")
    send_mail("x", "y", from_email="org@um-evento.example", to="ana@example.com")
    assert check_health().ok
    send_mail("x", "y", from_email=sender, to="ana@example.com")
    (problem,) = check_health().problems
    assert problem.startswith("The mail backend 'default' for senders at evento.example is unavailable since")
    assert problem.endswith(": 550 5.7.1 Unconfigured Sending Domain <evento.example>")


def test_each_problem_is_a_line_of_its_own() -> None:
    unavailable()
    send_mail("x", "y", to="ana@example.com")
    send_mail("x", "y", to="eva@example.com")
    late = timezone.now() - timedelta(minutes=2)
    Message.objects.filter(to=["eva@example.com"]).update(state=State.DEFERRED, due_at=late)
    _, complaint, status = mailer("health")
    assert status == 1
    assert [line.split()[0] for line in complaint.splitlines()] == ["No", "1", "The"]


def test_problems_are_told_in_portuguese() -> None:
    swept(minutes=2)
    unavailable()
    unavailable(sender_domain="example.com", failures=3)
    send_mail("x", "y", from_email="mail@example.com", to="ana@example.com")
    late = timezone.now() - timedelta(minutes=2)
    Message.objects.update(state=State.DEFERRED, due_at=late)
    with translation.override("pt-br"):
        problems = check_health().problems
    assert [problem.partition("20")[0] for problem in problems] == [
        "Nenhum worker faz uma varredura desde ",
        "1 mensagem já deveria ter andado e está parada há mais de 60 segundos.",
        "O backend de e-mail 'default' está indisponível desde ",
        "O backend de e-mail 'default' está indisponível para remetentes em example.com desde ",
    ]
    assert ", com uma tentativa, a próxima em 20" in problems[2]
    assert ", com 3 tentativas, a próxima em 20" in problems[3]


def store(**values: Any) -> Message:
    """A message in no batch that a worker could take."""
    message = queue_message()
    Message.objects.filter(pk=message.pk).update(**values)
    return message


def test_mail_that_waits_too_long_behind_a_living_worker_is_noticed() -> None:
    swept()
    store(queued_at=timezone.now() - timedelta(minutes=9))
    store()
    health = check_health()
    assert health.problems == []
    assert health.waiting.count == 2
    assert mailer("health")[0].splitlines()[1].startswith("mailer: 2 waiting, the oldest for 5")
    store(queued_at=timezone.now() - timedelta(minutes=11))
    (problem,) = check_health().problems
    assert problem.startswith("3 messages wait in the queue 'mailer', the oldest since 20")


def test_an_old_message_of_a_lower_priority_is_found_as_well() -> None:
    swept()
    store()
    oldest = timezone.now() - timedelta(minutes=5)
    store(priority=Priority.LOW, queued_at=oldest)
    assert check_health().waiting.oldest == oldest


def test_a_batch_that_does_not_move_is_noticed() -> None:
    swept()
    batch = send_bulk([f"ana{number}@example.com" for number in range(3)], subject="s", message="b")
    begun = timezone.now() - timedelta(minutes=11)
    health = check_health()
    assert (health.problems, health.waiting_batches.count) == ([], 1)
    Batch.objects.update(created_at=begun)
    Message.objects.update(queued_at=begun)
    (problem,) = check_health().problems
    assert problem == f"Nothing of the batch {batch.pk} was sent for 10 minutes, although something waits."
    # One of them was sent meanwhile.
    sent = Message.objects.order_by("id").first()
    assert sent is not None
    Message.objects.filter(pk=sent.pk).update(state=State.SENT, finished_at=timezone.now() - timedelta(minutes=2))
    assert check_health().problems == []


def test_a_batch_of_which_only_others_were_sent_since_is_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("congressy_mailer.outbox.waiting.COUNTED", 1)
    swept()
    now = timezone.now()
    moving, stuck, other = (send_bulk([f"a{n}@example.com" for n in (1, 2)], subject="s", message="b") for _ in "123")
    Batch.objects.update(created_at=now - timedelta(minutes=20))
    for batch, minutes in ((moving, 5), (stuck, 15), (other, 1)):
        sent = batch.messages.order_by("id").first()
        assert sent is not None
        Message.objects.filter(pk=sent.pk).update(state=State.SENT, finished_at=now - timedelta(minutes=minutes))
    assert check_health().stuck_batches == [stuck.pk]


def test_of_many_batches_that_do_not_move_the_first_are_named() -> None:
    swept()
    keys = [send_bulk(["ana@example.com"], subject="s", message="b").pk for _ in range(12)]
    Batch.objects.update(created_at=timezone.now() - timedelta(minutes=11))
    health = check_health()
    assert sorted(health.stuck_batches) == sorted(keys)
    assert len(health.problems) == 11
    assert health.problems[-1] == "The same is true of 2 further batches."


def test_a_batch_that_is_finished_or_is_to_be_sent_later_is_well() -> None:
    swept()
    send_bulk(["ana@example.com"], subject="s", message="b", send_at=timezone.now() + timedelta(hours=1))
    finished = send_bulk(["eva@example.com"], subject="s", message="b")
    finished.messages.update(state=State.SENT, finished_at=timezone.now())
    Batch.objects.update(created_at=timezone.now() - timedelta(hours=2))
    health = check_health()
    assert (health.problems, health.waiting_batches.count) == ([], 0)


def test_mail_that_was_set_aside_is_noticed_until_somebody_looks_after_it() -> None:
    swept()
    message = store(state=State.HELD, due_at=None, finished_at=timezone.now())
    assert check_health().problems == [
        "1 message is set aside (held) and waits for a person: the admin shows why.",
    ]
    message.refresh_from_db()
    message.retry()
    assert check_health().held == 0


def fail_a_task(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    def broken(*arguments: Any, **options: Any) -> None:
        raise LookupError("secret words")

    with monkeypatch.context() as patch:
        patch.setattr("congressy_mailer.delivery.runs.Delivery", broken)
        for _ in range(times):
            with pytest.raises(LookupError):
                tasks.deliver([str(UUID(int=1))])


def test_a_task_that_fails_each_time_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    swept()
    fail_a_task(monkeypatch, 2)
    assert check_health().problems == []
    fail_a_task(monkeypatch, 1)
    (problem,) = check_health().problems
    assert problem.startswith("The task for mailer failed 3 times since 20")
    assert "LookupError in tests.monitoring.test_health, line " in problem
    assert "secret" not in problem
    # Whatever it was, it is over.
    TaskFailure.objects.update(last_failed_at=timezone.now() - timedelta(minutes=4))
    assert check_health().problems == []
    fail_a_task(monkeypatch, 1)
    assert TaskFailure.objects.get().failures == 1


def test_failures_between_deliveries_are_no_task_that_fails_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    swept()
    fail_a_task(monkeypatch, 2)
    deliver([store().pk])
    fail_a_task(monkeypatch, 1)
    assert TaskFailure.objects.get().failures == 3
    assert check_health().problems == []


def test_a_task_that_ends_its_process_each_time_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    swept()

    def leave(*arguments: Any, **options: Any) -> None:
        raise SystemExit

    monkeypatch.setattr("congressy_mailer.delivery.runs.Delivery", leave)
    for _ in range(3):
        with pytest.raises(SystemExit):
            tasks.deliver([str(UUID(int=1))])
    assert len(check_health().failing_tasks) == 1


def test_what_no_longer_waits_with_its_batch_is_noticed() -> None:
    swept()
    send_bulk(["ana@example.com"], subject="s", message="b")
    long_ago = timezone.now() - timedelta(minutes=11)
    # As its worker's death leaves it.
    Message.objects.update(crashes=1, queued_at=long_ago, due_at=long_ago)
    (problem,) = check_health().problems
    assert problem.startswith("1 message waits in the queue 'mailer', since 20")


def test_a_batch_whose_task_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    swept()
    batch = send_bulk(["ana@example.com"], subject="s", message="b")
    monkeypatch.setattr(outbox, "batch_with_content", lambda key: 1 / 0)
    batch.refresh_from_db()
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            tasks.deliver_batch(str(batch.pk), batch.generation, False)
    assert [task.task for task in check_health().failing_tasks] == [str(batch.pk)]


def test_several_workers_count_one_task_together() -> None:
    run_concurrently(lambda worker: outbox.record_task_failure("mailer", "LookupError"))
    assert TaskFailure.objects.get().failures == 4


def test_json_for_machines() -> None:
    swept(seconds=1)
    out, complaint, status = mailer("health", "--json")
    assert (complaint, status) == ("", 0)
    written = json.loads(out)
    assert written["ok"] is True
    assert written["problems"] == written["unavailable"] == []
    assert written["overdue"] == 0
    assert written["last_sweep"].startswith("20")
    unavailable()
    send_mail("x", "y", to="ana@example.com")
    out, complaint, status = mailer("health", "--json")
    assert status == 1
    written = json.loads(out)
    assert written["ok"] is False
    assert written["problems"] == [complaint]
    assert written["unavailable"] == ["default"]


def test_a_database_that_is_away_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(name: str) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(periodic, "last_run", away)
    assert mailer("health")[1:] == ("The database cannot be queried: connection refused", 1)


def test_a_fault_elsewhere_in_the_project_is_not_the_answer() -> None:
    swept(seconds=1)
    with override_settings(ROOT_URLCONF="tests.no_such_module"):
        with pytest.raises(ModuleNotFoundError):
            call_command("check")
        out = StringIO()
        # As manage.py does it, which runs the project's checks first where a command asks for them.
        Command(stdout=out).run_from_argv(["manage.py", "mailer", "health"])
    assert out.getvalue().startswith("Mail is moving.")


def test_the_exit_status_is_for_probes() -> None:
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "DATABASE_URL": database_url(),
        "MAILER_TEST_WORKER": "1",
        "MAILER_TEST_DIRECTORY": str(settings.SCRATCH),
    }

    def probe() -> subprocess.CompletedProcess[str]:
        return run_module("django", "mailer", "health", environment=environment)

    done = probe()
    assert (done.returncode, done.stdout) == (1, "")
    # In the language of the project.
    assert done.stderr.startswith("CommandError: Nenhum worker jamais fez uma varredura: ")
    swept(seconds=1)
    done = probe()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Os e-mails estão andando.")


def test_purge_drops_what_is_old_whatever_there_is_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("congressy_mailer.outbox.retention._CHUNK", 2)
    for _ in range(5):
        send_mail("x", "y", to="ana@example.com", attachments=[("a.txt", b"1")])
    Message.objects.update(state=State.SENT, due_at=None, finished_at=timezone.now() - timedelta(days=31))
    out, complaint, status = mailer("purge")
    assert (complaint, status) == ("", 0)
    assert out.strip(".\n") == "Purged"
    assert Message.objects.filter(content_dropped_at=None).count() == 0
    assert Message.objects.count() == 5


def test_a_duty_is_taken_by_one_worker() -> None:
    # Nobody has ever done it, and then again each time it is due.
    for _ in range(4):
        claimed = run_concurrently(lambda worker: periodic.claim_run("count", timedelta(hours=1)), 6)
        assert sorted(claimed) == [False] * 5 + [True]
        PeriodicTask.objects.update(last_run_at=timezone.now() - timedelta(hours=1, seconds=1))
    assert PeriodicTask.objects.count() == 1


def test_a_duty_that_several_have_done_is_written_down_once() -> None:
    run_concurrently(lambda worker: periodic.mark_run("count"), 6)
    assert PeriodicTask.objects.count() == 1
    last = periodic.last_run("count")
    assert last is not None
    assert timedelta(0) <= timezone.now() - last < timedelta(seconds=20)


def test_a_duty_is_due_again_after_its_time_and_not_before() -> None:
    assert periodic.claim_run("count", timedelta(hours=1))
    PeriodicTask.objects.update(last_run_at=timezone.now() - timedelta(minutes=59))
    assert not periodic.claim_run("count", timedelta(hours=1))
    PeriodicTask.objects.update(last_run_at=timezone.now() - timedelta(minutes=61))
    assert periodic.claim_run("count", timedelta(hours=1))
    assert not periodic.claim_run("count", timedelta(hours=1))
    assert periodic.claim_run("another", timedelta(hours=1))


def test_a_clock_that_was_wrong_for_a_while_puts_nothing_off() -> None:
    periodic.mark_run("count", timezone.now() + timedelta(minutes=5))
    assert not periodic.claim_run("count", timedelta(hours=1))
    periodic.mark_run("count", timezone.now() + timedelta(days=400))
    assert periodic.claim_run("count", timedelta(hours=1))
    assert not periodic.claim_run("count", timedelta(hours=1))


def test_the_sweep_has_old_mail_purged_once_an_hour_for_all_workers(published: list[str]) -> None:
    for _ in range(3):
        tasks.sweep(time.time())
    assert published == ["purge"]
    PeriodicTask.objects.filter(name=periodic.PURGE).update(last_run_at=timezone.now() - timedelta(minutes=61))
    run_concurrently(lambda worker: tasks.sweep(time.time()), 6)
    assert published == ["purge", "purge"]


def test_sweeps_at_the_same_time_publish_each_message_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = queue(30)
    found: list[UUID] = []

    def publish(some: Sequence[UUID], **options: Any) -> bool:
        found.extend(some)
        return True

    monkeypatch.setattr("congressy_mailer.outbox.publishing.publish", publish)
    periodic.mark_run(periodic.PURGE)
    outbox.mark_unpublished(ids)
    run_concurrently(lambda worker: tasks.sweep(time.time() + 1), 6)
    assert sorted(found) == sorted(ids)
