"""``mailer doctor`` finds each of its faults, made real: servers that refuse, that throw away, that are not there."""

from __future__ import annotations

import json
import re
import resource
import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

import congressy_mailer
from congressy_mailer import metrics, outbox, send_bulk, send_mail
from congressy_mailer.diagnosis import EXAMINATIONS, Finding, Level, redis_server
from congressy_mailer.models import Message, State, WebhookBatch, Worker
from congressy_mailer.sparkpost.webhook_api import own_target
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.testing.local_sparkpost.webhooks import Webhook
from congressy_mailer.testing.local_sparkpost.whole import WholeSparkPost
from congressy_mailer.tracking import inbox, processing
from testbed.processes import Process, free_port
from testbed.redis_server import EmbeddedRedis
from tests.chaos.clocks import clock_environment, find_faketime
from tests.conftest import wait_for
from tests.support.scripted_smtp import ScriptedServer
from tests.support.sparkpost_events import batch_body, event

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("english")]

SMTP = "django.core.mail.backends.smtp.EmailBackend"


def doctor(*arguments: str) -> tuple[str, str, int]:
    """``manage.py mailer doctor``: what it writes, what it complains about, and its exit status."""
    out = StringIO()
    try:
        call_command("mailer", "doctor", *arguments, stdout=out)
    except CommandError as error:
        return out.getvalue(), str(error), error.returncode
    return out.getvalue(), "", 0


def found(name: str) -> list[Finding]:
    """What an examination finds that is not good."""
    return [finding for finding in EXAMINATIONS[name].findings() if finding.level != Level.GOOD]


def told(name: str) -> tuple[Level, str]:
    """The one thing that an examination finds."""
    (finding,) = found(name)
    assert finding.examination == name
    assert finding.advice or finding.level == Level.SKIPPED
    return finding.level, finding.text


def smtp_backend(settings: Any, **options: Any) -> None:
    """Have the default mail backend be an SMTP server."""
    options = {"host": "localhost", **options}
    if hasattr(settings, "MAILERS"):
        settings.MAILERS = {**settings.MAILERS, "default": {"BACKEND": SMTP, "OPTIONS": options}}
        return
    # The test runner has put another one in its place.
    settings.EMAIL_BACKEND = SMTP
    names = {"username": "HOST_USER", "password": "HOST_PASSWORD"}
    for name in ("host", "port", "username", "password", "use_tls", "use_ssl", "timeout"):
        setting = f"EMAIL_{names.get(name, name.upper())}"
        setattr(settings, setting, options.get(name, "" if name in names else None))


class TestProject:
    pytestmark = pytest.mark.usefixtures("published")

    def test_a_wrong_setting(self, settings: Any) -> None:
        settings.CONGRESSY_MAILER = {"RETRY_FRO": timedelta(hours=1)}
        assert "congressy_mailer.E001" in " ".join(finding.text for finding in found("settings"))

    @pytest.mark.database
    def test_migrations_that_have_not_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert found("database") == []
        monkeypatch.setattr("congressy_mailer.diagnosis.queues._WORKER_TIMEOUT", 0.1)
        monkeypatch.setattr("congressy_mailer.diagnosis.dns_records._LIFETIME", 0.1)
        call_command("migrate", "congressy_mailer", "zero", verbosity=0)
        try:
            level, text = told("database")
            # Without the tables, which others of them read.
            out, _, status = doctor()
        finally:
            call_command("migrate", "congressy_mailer", verbosity=0)
        assert (level, "0001_initial" in text) == (Level.ERROR, True)
        assert (text in out, status) == (True, 1)
        assert all(f"[{name}]" in out for name in EXAMINATIONS)
        assert found("database") == []

    def test_a_storage_that_cannot_be_written(self, settings: Any, tmp_path: Path) -> None:
        assert found("attachment-storage") == []
        file = tmp_path / "no-folder"
        file.write_text("")
        storage = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(file)}}
        settings.STORAGES = {**settings.STORAGES, "default": storage}
        level, text = told("attachment-storage")
        assert (level, "cannot be written" in text) == (Level.ERROR, True)

    def test_a_template_that_is_gone(self, settings: Any, tmp_path: Path) -> None:
        assert told("templates") == (Level.SKIPPED, "No mail was made from a template.")
        settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [tmp_path]}, *settings.TEMPLATES[1:]]
        file = tmp_path / "welcome.html"
        file.write_text("<p>x</p>")
        send_mail("x", to="ana@example.com", template="welcome")
        assert found("templates") == []
        file.unlink()
        # As in a new process, which has compiled none.
        settings.TEMPLATES = [*settings.TEMPLATES]
        level, text = told("templates")
        assert (level, "There is no template 'welcome'" in text) == (Level.ERROR, True)

    def test_a_language_that_is_missing(self, settings: Any, tmp_path: Path) -> None:
        settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [tmp_path]}, *settings.TEMPLATES[1:]]
        for name in ("welcome.html", "welcome.pt-br.html"):
            (tmp_path / name).write_text("<p>x</p>")
        for language in ("pt-br", "es"):
            send_mail("x", to="ana@example.com", template="welcome", language=language)
        assert told("templates") == (
            Level.WARNING,
            "The template welcome exists in pt-br but not in es, in which mail is sent.",
        )


class TestQueues:
    def test_a_broker_that_is_not_there(self, celery_settings: Callable[..., None]) -> None:
        url = f"redis://localhost:{free_port()}/0"
        celery_settings(broker_url=url, broker_write_url=url)
        level, text = told("broker")
        assert (level, "cannot be reached" in text) == (Level.ERROR, True)
        assert told("worker-takes-tasks") == (Level.ERROR, "The broker took no task.")

    @pytest.mark.broker
    @pytest.mark.database
    def test_no_worker_and_then_a_real_one_that_serves_one_queue(
        self, start_worker: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert found("broker") == []
        monkeypatch.setattr("congressy_mailer.diagnosis.queues._WORKER_TIMEOUT", 0.5)
        assert told("worker-takes-tasks")[0] == Level.ERROR
        assert told("worker-queues") == (Level.ERROR, "No worker has reported lately.")
        monkeypatch.setattr("congressy_mailer.diagnosis.queues._WORKER_TIMEOUT", 30)
        start_worker("-Q", "mailer")
        assert found("worker-takes-tasks") == []
        wait_for(Worker.objects.exists, what="the worker to tell of itself")
        assert told("worker-queues") == (
            Level.ERROR,
            "No worker serves the queue mailer.bulk: its mail is never sent.",
        )
        for name in ("worker-versions", "clocks", "concurrency"):
            assert found(name) == []

    @pytest.mark.database
    def test_workers_of_which_one_is_wrong_in_every_way(
        self, start_worker: Callable[..., Process], settings: Any, tmp_path: Path
    ) -> None:
        library = find_faketime()
        assert library is not None, "libfaketime is missing: apt install faketime"
        start_worker(MAILER_TEST_SWEEP_INTERVAL_SECONDS="1")
        wait_for(lambda: len(live_workers()) == 1, what="the worker to tell of itself")
        settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "MAX_CONNECTIONS": 2}
        for name in ("worker-versions", "clocks", "concurrency", "attachment-storage"):
            assert found(name) == []
        start_worker(
            "-n", "odd@elsewhere", "-P", "solo",
            directory=older_version(tmp_path / "older"), program="tests.chaos.clocks",
            MAILER_TEST_SWEEP_INTERVAL_SECONDS="1", **clock_environment(library, timedelta(minutes=3)),
        )  # fmt: skip
        wait_for(lambda: "odd@elsewhere" in live_workers(), what="the second worker to tell of itself")
        assert told("worker-versions") == (
            Level.WARNING,
            f"The worker odd@elsewhere runs version 0.0.9, and here it is {congressy_mailer.__version__}.",
        )
        level, text = told("attachment-storage")
        assert (level, text.endswith("and workers run on others: elsewhere.")) == (Level.WARNING, True)
        assert [finding.text for finding in found("concurrency")] == [
            "The workers run 3 tasks at a time, and MAX_CONNECTIONS is 2.",
            "The worker odd@elsewhere has the pool solo: one task at a time, and no TIME_LIMIT.",
        ]
        # On SQLite, the clock of the database is that of the worker which takes the sweep: the other one's, soon.
        (finding,) = wait_for(lambda: found("clocks"), what="the clock to be found wrong")
        assert finding.level == Level.WARNING
        assert re.fullmatch(r"The clock of the worker odd@elsewhere is 1\d\d\.\d s ahead of .+", finding.text)


def live_workers() -> set[str]:
    return set(Worker.objects.values_list("name", flat=True))


def older_version(directory: Path) -> Path:
    """A folder with this code, where it says that it is of version 0.0.9."""
    root = Path(congressy_mailer.__file__).parents[1]
    package = directory / "congressy_mailer"
    package.mkdir(parents=True)
    for path in (root / "congressy_mailer").iterdir():
        if path.name not in ("__init__.py", "__pycache__"):
            (package / path.name).symlink_to(path)
    here = f'__version__ = "{congressy_mailer.__version__}"'
    source = (root / "congressy_mailer" / "__init__.py").read_text()
    assert here in source
    (package / "__init__.py").write_text(source.replace(here, '__version__ = "0.0.9"'))
    for name in ("tests", "testbed"):
        (directory / name).symlink_to(root / name)
    return directory


class TestRedis:
    def test_one_that_throws_queues_away(self, redis_server: EmbeddedRedis, broker: str) -> None:
        if not broker.startswith("redis:"):
            assert told("redis-eviction")[0] == Level.SKIPPED
            return
        client = redis.Redis(port=redis_server.port)
        assert found("redis-eviction") == []
        client.config_set("maxmemory", "100mb")
        assert found("redis-eviction") == []
        client.config_set("maxmemory-policy", "allkeys-lru")
        level, text = told("redis-eviction")
        assert (level, "allkeys-lru" in text) == (Level.ERROR, True)
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        level, text = told("redis-eviction")
        assert (level, "of its maxmemory" in text) == (Level.ERROR, True)
        client.close()

    def test_one_that_forgets(self, redis_server: EmbeddedRedis, broker: str) -> None:
        level, text = told("redis-persistence")
        assert (level, "appendonly is off" in text) == (Level.WARNING, True)
        client = redis.Redis(port=redis_server.port)
        client.config_set("appendonly", "yes")
        wait_for(lambda: not client.info("persistence")["aof_rewrite_in_progress"], what="its file")
        client.close()
        assert found("redis-persistence") == []

    def test_one_that_cannot_write_a_snapshot(self, redis_server: EmbeddedRedis, broker: str) -> None:
        with closing(redis.Redis(port=redis_server.port)) as client:
            # The disk is gone. Without points at which it saves by itself it goes on taking tasks.
            shutil.rmtree(client.config_get("dir")["dir"])
            client.bgsave()
            wait_for(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", what="a snapshot to fail")
            assert [(finding.level, finding.text) for finding in found("redis-persistence")] == [
                (Level.WARNING, "Redis loses its queues when it restarts: appendonly is off."),
                (Level.ERROR, "Redis cannot write to its disk (rdb_last_bgsave_status)."),
            ]
            assert found("broker") == []
            client.config_set("save", "1 1")
            self.refuses_commands()
            # It would not end before it has saved.
            client.config_set("save", "")

    def test_one_that_cannot_write_its_log(self, redis_server: EmbeddedRedis, broker: str) -> None:
        with closing(redis.Redis(port=redis_server.port)) as client:
            client.config_set("appendonly", "yes")
            wait_for(lambda: not client.info("persistence")["aof_rewrite_in_progress"], what="its file")
            # A file that may not become longer is as good as a disk that is full.
            resource.prlimit(redis_server.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
            client.set("a", "b")
            wait_for(lambda: client.info("persistence")["aof_last_write_status"] == "err", what="a write to fail")
            self.refuses_commands()
            resource.prlimit(redis_server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)

    def refuses_commands(self) -> None:
        assert told("redis-persistence") == (Level.ERROR, "Redis cannot write to its disk (MISCONF).")
        assert told("redis-eviction") == (Level.SKIPPED, "Redis answers nothing until it can write to its disk.")
        level, text = told("broker")
        assert (level, "MISCONF" in text) == (Level.ERROR, True)
        assert told("worker-takes-tasks") == (Level.ERROR, "The broker took no task.")

    def test_another_broker(self, celery_settings: Callable[..., None]) -> None:
        celery_settings(broker_url="memory://", broker_write_url="memory://")
        assert redis_server_is_not_asked("redis-eviction")
        assert redis_server_is_not_asked("redis-persistence")


def redis_server_is_not_asked(name: str) -> bool:
    return told(name) == (Level.SKIPPED, "The broker is not Redis, or does not answer.")


class TestSmtp:
    def good(self, settings: Any, server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        given = {"port": server.port, "username": server.user, "password": server.password, "use_tls": True}
        smtp_backend(settings, **{**given, **options})

    def test_nothing_is_wrong_and_no_mail_is_sent(
        self, settings: Any, smtp_server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.good(settings, smtp_server, monkeypatch)
        assert found("smtp") == []
        assert found("smtp-timeout") == []
        assert (len(smtp_server.mailbox), smtp_server.connections) == (0, 1)

    def test_a_wrong_password(
        self, settings: Any, smtp_server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.good(settings, smtp_server, monkeypatch, password="wrong-password-7711")
        level, text = told("smtp")
        assert (level, "refuses the login" in text, "7711" in text) == (Level.ERROR, True, False)

    def test_a_certificate_that_nobody_trusts(
        self, settings: Any, smtp_server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.good(settings, smtp_server, monkeypatch)
        for name in smtp_server.environment():
            monkeypatch.delenv(name)
        level, text = told("smtp")
        assert (level, "no TLS connection" in text) == (Level.ERROR, True)

    def test_a_server_without_tls_and_pipelining(self, settings: Any) -> None:
        with closing(ScriptedServer(extensions=())) as server:
            smtp_backend(settings, port=server.port, use_tls=True)
            level, text = told("smtp")
            assert (level, "does not offer what the settings ask for" in text) == (Level.ERROR, True)
            smtp_backend(settings, port=server.port)
            level, text = told("smtp")
            assert (level, "PIPELINING" in text) == (Level.WARNING, True)

    def test_a_connection_that_anybody_may_read(self, settings: Any) -> None:
        with closing(ScriptedServer(extensions=())) as server:
            # A way to write this machine's address by which nobody would know that it is this machine's.
            smtp_backend(settings, host="127.1", port=server.port)
            assert "is not encrypted" in found("smtp")[0].text

    def test_a_port_that_nobody_listens_on_and_a_host_that_does_not_exist(self, settings: Any) -> None:
        smtp_backend(settings, port=free_port())
        level, text = told("smtp")
        assert (level, "cannot be reached" in text) == (Level.ERROR, True)
        smtp_backend(settings, host="mail.invalid", port=587)
        level, text = told("smtp")
        assert (level, "there is no such host" in text) == (Level.ERROR, True)

    def test_a_time_limit_that_is_too_short(self, settings: Any) -> None:
        smtp_backend(settings, port=587, timeout=5)
        level, text = told("smtp-timeout")
        assert (level, "5 s only" in text) == (Level.WARNING, True)

    def test_no_smtp_server(self) -> None:
        assert told("smtp") == (Level.SKIPPED, "No mail backend is an SMTP server.")


class TestSparkPost:
    pytestmark = pytest.mark.usefixtures("published")

    def test_without_a_key(self) -> None:
        for name in ("sparkpost-key", "sparkpost-domain", "sparkpost-webhook"):
            assert told(name)[0] == Level.SKIPPED

    def test_a_key_that_was_revoked(self, local_sparkpost: WholeSparkPost) -> None:
        assert found("sparkpost-key") == []
        local_sparkpost.account.key = "another-one"
        assert told("sparkpost-key") == (Level.ERROR, "SparkPost does not know the API key.")

    def test_a_key_that_may_not_do_everything(self, local_sparkpost: WholeSparkPost) -> None:
        local_sparkpost.account.permissions = frozenset({"transmissions/modify", "webhooks/modify"})
        assert told("sparkpost-key") == (
            Level.WARNING,
            "The API key lacks permissions: Suppression Lists: Read/Write, Sending Domains: Read-only.",
        )

    def test_an_api_that_cannot_be_reached(self, local_sparkpost: WholeSparkPost) -> None:
        local_sparkpost.api.stop()
        level, text = told("sparkpost-key")
        assert (level, "cannot be reached" in text) == (Level.ERROR, True)

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            ({"ownership_verified": False}, "is not verified at SparkPost"),
            ({"compliance_status": "blocked"}, "compliance team has blocked"),
            ({"dkim_status": "unverified"}, "The DKIM key of congressy.net is not in the DNS"),
        ],
    )
    def test_a_sending_domain(self, local_sparkpost: WholeSparkPost, status: Any, words: str) -> None:
        assert found("sparkpost-domain") == []
        local_sparkpost.account.domain_status["congressy.net"] = status
        level, text = told("sparkpost-domain")
        assert (level, words in text) == (Level.ERROR, True)

    def test_a_sending_domain_that_is_not_known(self, local_sparkpost: WholeSparkPost) -> None:
        local_sparkpost.account.sending_domains = frozenset({"congressy.net"})
        send_mail("x", "y", "news@other.example.com", ["ana@example.com"])
        level, text = told("sparkpost-domain")
        assert (level, "does not know the sending domain other.example.com" in text) == (Level.ERROR, True)

    def test_the_webhook(self, local_sparkpost: WholeSparkPost, settings: Any) -> None:
        settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "SITE_URL": "https://www.example.com"}
        settings.CONGRESSY_MAILER["WEBHOOK_SECRETS"] = ["bearer a-token"]
        level, text = told("sparkpost-webhook")
        assert (level, text) == (Level.ERROR, f"No webhook of SparkPost posts to {own_target()}.")
        # It is not asked whether it answers: this site has no server.
        registered = Webhook("1", "x", own_target(), ["delivery"], active=False)
        local_sparkpost.account.webhooks._webhooks["1"] = registered
        assert "is switched off at SparkPost" in told("sparkpost-webhook")[1]
        registered.active = True
        assert told("sparkpost-webhook")[0] == Level.SKIPPED
        send_mail("x", "y", to="ana@example.com")
        hour_ago = timezone.now() - timedelta(hours=1)
        Message.objects.update(state=State.SENT, due_at=None, finished_at=hour_ago, sent_at=hour_ago)
        level, text = told("sparkpost-webhook")
        assert (level, "no event of SparkPost's has come" in text) == (Level.ERROR, True)
        post_events(event("delivery"))
        assert found("sparkpost-webhook") == []


def post_events(*events: dict[str, Any]) -> None:
    """What SparkPost posts, taken in by the webhook and processed."""
    answer = Client().post(
        "/mailer/sparkpost/events/", batch_body(*events), content_type="application/json",
        headers={"Authorization": "Bearer a-token"},
    )  # fmt: skip
    assert answer.status_code == 200
    # As a sweep finds it that comes later.
    WebhookBatch.objects.update(due_at=timezone.now())
    for ticket in inbox.due_batches():
        processing.process(ticket)
    metrics.flush()


class TestBulk:
    pytestmark = pytest.mark.usefixtures("published")

    def test_marketing_without_one_click(self, settings: Any) -> None:
        assert told("bulk-one-click")[0] == Level.SKIPPED
        send_bulk(["ana@example.com"], subject="x", message="y")
        settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "SITE_URL": None}
        assert told("bulk-one-click") == (
            Level.ERROR,
            "Marketing mail has no link to unsubscribe in one click.",
        )
        settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "SITE_URL": "http://www.example.com"}
        assert "is not https" in told("bulk-one-click")[1]
        settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "SITE_URL": "https://www.example.com"}
        assert found("bulk-one-click") == []

    def test_complaints(self, settings: Any) -> None:
        settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "WEBHOOK_SECRETS": ["bearer a-token"]}
        send_bulk([f"ana{number}@example.com" for number in range(1000)], subject="x", message="y")
        messages = list(Message.objects.all())
        post_events(*(event("delivery", message) for message in messages))
        assert found("bulk-complaints") == []
        post_events(*(event("spam_complaint", message) for message in messages[:2]))
        text = "0.20 % of the mail of the last seven days was reported as spam."
        assert told("bulk-complaints") == (Level.WARNING, text)
        post_events(event("spam_complaint", messages[2]))
        assert told("bulk-complaints") == (Level.ERROR, text.replace("0.20", "0.30"))

    def test_too_few_to_tell(self) -> None:
        assert told("bulk-complaints")[0] == Level.SKIPPED


def worker(name: str, **values: Any) -> Worker:
    """A worker that was heard of just now."""
    now = timezone.now()
    given: dict[str, Any] = {
        "queues": ["mailer", "mailer.bulk"], "pool": "prefork", "concurrency": 2,
        "version": congressy_mailer.__version__, "started_at": now, "published_at": now, "seen_at": now, **values,
    }  # fmt: skip
    return Worker.objects.create(name=name, **given)


class TestCommand:
    pytestmark = pytest.mark.usefixtures("published")

    def test_it_says_what_to_do(self) -> None:
        out, complaint, status = doctor("worker-queues", "smtp")
        assert out == (
            "x Workers and their queues [worker-queues]\n    No worker has reported lately.\n"
            "    → Start one with celery -A project worker.\n"
            "- SMTP: connection, TLS, login, pipelining [smtp]\n    No mail backend is an SMTP server.\n"
        )
        assert (complaint, status) == ("1 thing is wrong.", 1)

    def test_what_could_be_better_is_no_failure(self) -> None:
        worker("celery@here", version="0.0.9")
        out, _, status = doctor("worker-versions")
        assert (out.splitlines()[-1], status) == ("Nothing is wrong, and 1 thing could be better.", 0)

    def test_it_is_there_for_machines(self) -> None:
        worker("celery@here")
        out, _, status = doctor("--json", "worker-versions")
        assert json.loads(out) == [{"level": "good", "text": "", "advice": "", "examination": "worker-versions"}]

    def test_an_examination_that_does_not_exist(self) -> None:
        assert doctor("weather")[2] == 2

    def test_an_error_of_its_own_is_a_finding(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_server, "_information", lambda section: {"maxmemory": "much"})
        (finding,) = found("redis-eviction")
        assert (finding.level, "ValueError" in finding.text) == (Level.ERROR, True)

    def test_all_of_it_in_an_empty_project(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("congressy_mailer.diagnosis.queues._WORKER_TIMEOUT", 0.1)
        monkeypatch.setattr("congressy_mailer.diagnosis.dns_records._LIFETIME", 0.1)
        out, _, _ = doctor()
        assert all(f"[{name}]" in out for name in EXAMINATIONS)
        assert not Message.objects.exists()
        assert outbox.database()
