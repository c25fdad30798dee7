"""``mailer import``: mail that other packages have really queued, in their own tables, is in the outbox afterwards."""

from __future__ import annotations

import base64
import pickle
import subprocess
import sys
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import mailer
import pytest
from django.apps import apps
from django.core import mail
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.core.mail import EmailMultiAlternatives
from django.core.management import CommandError, call_command
from django.utils import timezone
from mailer.backend import DbBackend
from mailer.models import DontSendEntry
from mailer.models import Message as QueuedMessage
from post_office import mail as post_office
from post_office.lockfile import default_lockfile
from post_office.models import STATUS, Email, EmailTemplate

from congressy_mailer.content.templates import render
from congressy_mailer.models import Message, Priority, State
from congressy_mailer.suppressions import is_suppressed
from congressy_mailer.testing import deliver_all
from tests.support.pickles import HOSTILE, mail_with

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("published")]


def run(package: str, *arguments: str) -> tuple[str, str, int]:
    """What the command writes, what it complains about, and its exit status."""
    out, complaints = StringIO(), StringIO()
    try:
        call_command("mailer", "import", package, *arguments, stdout=out, stderr=complaints)
    except CommandError as error:
        return out.getvalue(), complaints.getvalue() + str(error), error.returncode
    return out.getvalue(), complaints.getvalue(), 0


def outbox() -> list[Message]:
    return list(Message.objects.order_by("created_at", "id"))


def rich() -> EmailMultiAlternatives:
    one = EmailMultiAlternatives(
        "Inscrição", "Olá, Ana.", "Evento <evento@example.com>", ["Ana <ana@example.com>"], cc=["eva@example.com"],
        bcc=["rui@example.com"], reply_to=["org@example.com"],
        headers={"X-Order": "7", "Message-ID": "<7@example.com>"},
    )  # fmt: skip
    one.attach_alternative("<p>Olá, <b>Ana</b>.</p>", "text/html")
    one.attach("boleto.pdf", b"%PDF-1" * 30_000, "application/pdf")
    return one


def assert_rich(delivered: Any) -> None:
    assert (delivered.subject, delivered.body) == ("Inscrição", "Olá, Ana.")
    assert (delivered.to, delivered.cc) == (["Ana <ana@example.com>"], ["eva@example.com"])
    assert sorted(delivered.recipients()) == ["ana@example.com", "eva@example.com", "rui@example.com"]
    assert delivered.alternatives[0][0] == "<p>Olá, <b>Ana</b>.</p>"
    assert delivered.attachments == [("boleto.pdf", b"%PDF-1" * 30_000, "application/pdf")]
    assert delivered.extra_headers["X-Order"] == "7"
    assert delivered.message()["Message-ID"] == "<7@example.com>"


def deliver_and_find(subject: str) -> Any:
    deliver_all()
    return next(one for one in mail.outbox if one.subject == subject)


class TestDjangoMailer:
    def test_what_waits_is_in_the_outbox_and_no_longer_in_its_queue(self) -> None:
        mailer.send_mail("First", "Hello.", "site@example.com", ["ana@example.com"], priority=1)
        mailer.send_html_mail("Second", "Hello.", "<p>Hello.</p>", "site@example.com", ["eva@example.com"], priority=3)
        DbBackend().send_messages([rich()])
        QueuedMessage.objects.get(priority=3).defer()

        out, complaints, status = run("django-mailer", "--dry-run")
        assert (complaints, status) == ("", 0)
        assert out.splitlines()[-2:] == ["3 mails would be imported.", "Nothing was changed."]
        assert (QueuedMessage.objects.count(), Message.objects.count()) == (3, 0)

        out, complaints, status = run("django-mailer")
        assert (out.splitlines()[-1], complaints, status) == ("3 mails are in the outbox now.", "", 0)
        assert not QueuedMessage.objects.exists()
        assert [(one.subject, one.priority, one.sensitive) for one in outbox()] == [
            ("First", Priority.HIGH, True), ("Inscrição", Priority.NORMAL, True), ("Second", Priority.LOW, True),
        ]  # fmt: skip

        assert run("django-mailer")[0].splitlines()[-1] == "0 mails are in the outbox now."
        assert [one.state for one in deliver_all()] == [State.SENT] * 3
        first, whole, second = mail.outbox
        assert (first.subject, first.body, first.from_email) == ("First", "Hello.", "site@example.com")
        assert second.alternatives[0][0] == "<p>Hello.</p>"
        assert_rich(whole)

    def test_what_was_stored_before_an_interruption_is_not_stored_twice(self) -> None:
        mailer.send_mail("First", "Hello.", "site@example.com", ["ana@example.com"])
        row = QueuedMessage.objects.get()
        run("django-mailer")
        row.save(force_insert=True)
        assert "1 mail had been imported before." in run("django-mailer")[0]
        assert (Message.objects.count(), QueuedMessage.objects.count()) == (1, 0)
        # The same number stands for another mail where the table was emptied.
        mailer.send_mail("Second", "Hello.", "site@example.com", ["ana@example.com"])
        QueuedMessage.objects.update(id=row.id)
        run("django-mailer")
        assert [one.subject for one in outbox()] == ["First", "Second"]

    def test_a_mail_that_cannot_be_imported_is_named_and_stays(self, settings: Any) -> None:
        settings.MAILER_EMAIL_MAX_RETRIES = 2
        mailer.send_mail("Fine", "Hello.", "site@example.com", ["ana@example.com"])
        mailer.send_mail("Nobody", "Hello.", "site@example.com", [])
        mailer.send_mail("Wrong", "Hello.", "site@example.com", ["ana@example.com, eva@example.com"])
        mailer.send_mail("Given up", "Hello.", "site@example.com", ["ana@example.com"])
        QueuedMessage.objects.filter(pk=QueuedMessage.objects.latest("pk").pk).update(priority=4, retry_count=2)
        hostile = base64.encodebytes(mail_with("connection", HOSTILE["builtins"])).decode()
        QueuedMessage.objects.create(message_data=hostile)
        QueuedMessage.objects.create(message_data="no base64!")
        by_number = dict(enumerate(QueuedMessage.objects.order_by("pk"), 1))

        out, complaints, status = run("django-mailer")
        assert status == 1
        assert "1 mail is in the outbox now." in out
        assert [one.subject for one in outbox()] == ["Fine"]
        assert sorted(QueuedMessage.objects.values_list("pk", flat=True)) == [by_number[n].pk for n in range(2, 7)]
        reasons = {line.split()[1]: line.partition(": ")[2] for line in complaints.splitlines() if line[:6] == "  mail"}
        assert reasons[str(by_number[2].pk)] == "it has no recipient"
        assert "ana@example.com, eva@example.com" in reasons[str(by_number[3].pk)]
        assert reasons[str(by_number[4].pk)] == "django-mailer has given it up after MAILER_EMAIL_MAX_RETRIES"
        assert "it names builtins.eval" in reasons[str(by_number[5].pk)]
        assert reasons[str(by_number[6].pk)] == "what it holds is damaged"
        assert complaints.endswith("5 are left where they were.")

    def test_a_mail_that_the_storage_does_not_take_stays_with_those_behind_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mailer.send_mail("First", "Hello.", "site@example.com", ["ana@example.com"])
        DbBackend().send_messages([rich()])

        def fill(*arguments: Any, **options: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as full:
            full.setattr(FileSystemStorage, "_save", fill)
            _, complaints, status = run("django-mailer")
        assert ("could not be put into the storage" in complaints, status) == (True, 1)
        assert ([one.subject for one in outbox()], QueuedMessage.objects.count()) == (["First"], 1)
        assert "1 mail is in the outbox now." in run("django-mailer")[0]
        assert_rich(deliver_and_find("Inscrição"))

    def test_a_pickle_is_never_loaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        mailer.send_mail("First", "Hello.", "site@example.com", ["ana@example.com"])

        def load(*arguments: Any, **options: Any) -> None:
            raise AssertionError("a pickle was loaded")

        monkeypatch.setattr(pickle, "loads", load)
        monkeypatch.setattr(pickle, "Unpickler", load)
        monkeypatch.setattr("mailer.models.db_to_email", load)
        assert run("django-mailer")[2] == 0
        assert [one.subject for one in outbox()] == ["First"]

    def test_addresses_that_get_no_mail_get_none_from_us(self) -> None:
        DbBackend().send_messages([rich()])
        for address in ("Ana@Example.com", "never@example.com", "nonsense"):
            DontSendEntry.objects.create(to_address=address, when_added=timezone.now())
        assert "2 addresses would come onto the suppression list." in run("django-mailer", "--dry-run")[0]
        out, complaints, status = run("django-mailer")
        assert "2 addresses are new on the suppression list." in out
        assert ("nonsense" in complaints, status) == (True, 1)
        assert is_suppressed("never@example.com")
        assert is_suppressed("never@example.com", transactional=False)
        assert "0 addresses are new" in run("django-mailer")[0]
        deliver_all()
        assert sorted(mail.outbox[0].recipients()) == ["eva@example.com", "rui@example.com"]

    def test_it_waits_for_nobody_who_is_sending(self, settings: Any) -> None:
        mailer.send_mail("First", "Hello.", "site@example.com", ["ana@example.com"])
        lock = Path(f"{settings.MAILER_LOCK_PATH}.lock")
        lock.touch()
        assert f"has left its lock file {lock} behind" in run("django-mailer")[1]
        lock.unlink()
        assert Message.objects.count() == 0
        assert run("django-mailer")[2] == 0
        assert not lock.exists()

    def test_not_while_the_projects_mail_still_goes_through_it(
        self, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mailer.send_mail("First", "Hello.", "site@example.com", ["ana@example.com"])
        if hasattr(settings, "MAILERS"):
            settings.MAILERS = {"default": {"BACKEND": "mailer.backend.DbBackend"}}
        else:
            settings.EMAIL_BACKEND = "mailer.backend.DbBackend"
        assert "Change EMAIL_BACKEND or MAILERS first." in run("django-mailer")[1]
        monkeypatch.setattr(apps, "is_installed", lambda app: app != "mailer")
        assert "django-mailer is not in INSTALLED_APPS" in run("django-mailer")[1]


@pytest.fixture
def files(settings: Any, tmp_path: Path) -> Path:
    """Where the package keeps attachments."""
    settings.MEDIA_ROOT = tmp_path / "media"
    return tmp_path


@pytest.mark.usefixtures("files")
class TestPostOffice:
    def test_what_waits_is_in_the_outbox_and_no_longer_in_its_queue(self) -> None:
        soon, later = timezone.now() + timedelta(hours=1), timezone.now() + timedelta(days=1)
        EmailTemplate.objects.create(name="welcome", subject="Hi {{ name }}", content="Hi {{ name }}!", html_content="")
        post_office.send("ana@example.com", "site@example.com", subject="High", message="x", priority="high")
        post_office.send(
            "eva@example.com", "site@example.com", template="welcome", context={"name": "Eva"}, priority="low",
            render_on_delivery=True, scheduled_time=soon, expires_at=later,
        )  # fmt: skip
        one = rich()
        post_office.send(
            one.to, one.from_email, cc=one.cc, bcc=one.bcc, subject=one.subject, message=one.body,
            html_message=one.alternatives[0][0], headers={**one.extra_headers, "Reply-To": "org@example.com"},
            attachments={"boleto.pdf": {"file": ContentFile(b"%PDF-1" * 30_000), "mimetype": "application/pdf"}},
        )  # fmt: skip
        Email.objects.filter(subject="Inscrição").update(status=STATUS.requeued)
        post_office.send("ana@example.com", "site@example.com", subject="Sent", message="x")
        Email.objects.filter(subject="Sent").update(status=STATUS.sent)

        out, complaints, status = run("post-office", "--dry-run")
        assert (out.splitlines(), complaints, status) == (["3 mails would be imported.", "Nothing was changed."], "", 0)
        assert Message.objects.count() == 0

        assert run("post-office") == ("3 mails are in the outbox now.\n", "", 0)
        assert run("post-office") == ("0 mails are in the outbox now.\n", "", 0)
        assert post_office.get_queued().count() == 0
        assert sorted(Email.objects.values_list("status", flat=True), key=str) == [STATUS.sent, None, None, None]
        high, normal, low = outbox()
        assert [one.priority for one in (high, normal, low)] == [Priority.HIGH, Priority.NORMAL, Priority.LOW]
        assert (low.state, low.send_at, low.expires_at) == (State.SCHEDULED, soon, later)
        assert {name.lower() for name in low.headers} & {"expires"} == set()

        deliver_all(within=timedelta(hours=2))
        assert [one.subject for one in mail.outbox] == ["High", "Inscrição", "Hi Eva"]
        assert mail.outbox[2].body == "Hi Eva!"
        assert_rich(mail.outbox[1])

    def test_a_mail_that_cannot_be_imported_is_named_and_stays(self, files: Path) -> None:
        past = timezone.now() - timedelta(hours=1)
        post_office.send("ana@example.com", "site@example.com", subject="Fine", message="x")
        post_office.send("ana@example.com", "site@example.com", subject="Expired", message="x", expires_at=past)
        post_office.send(subject="Nobody", message="x", sender="site@example.com")
        lost = post_office.send(
            "ana@example.com", "site@example.com", subject="Lost", message="x", attachments={"a.txt": ContentFile("x")}
        )
        Path(lost.attachments.get().file.path).unlink()
        elsewhere = post_office.send("ana@example.com", "site@example.com", subject="Elsewhere", message="x")
        Email.objects.filter(pk=elsewhere.pk).update(backend_alias="ses")

        out, complaints, status = run("post-office")
        assert "1 mail is in the outbox now." in out
        assert ("4 are left where they were." in complaints, status) == (True, 1)
        for reason in ("it has expired", "it has no recipient", "No such file", "using='ses' is not a mail backend"):
            assert reason in complaints
        assert set(Email.objects.filter(status=STATUS.queued).values_list("subject", flat=True)) == {
            "Expired", "Nobody", "Lost", "Elsewhere",
        }  # fmt: skip

    def test_mail_for_test_addresses_alone_goes_to_nobody_else(self, settings: Any) -> None:
        post_office.send("ana@example.com", "site@example.com", subject="x", message="x", cc="eva@example.com")
        settings.POST_OFFICE = {"OVERRIDE_RECIPIENTS": ["dev@example.com"]}
        assert '"REDIRECT": {"to": [\'dev@example.com\']}' in run("post-office")[1]
        settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "REDIRECT": {"to": ["dev@example.com"]}}
        assert run("post-office")[2] == 0
        assert outbox()[0].envelope == ["ana@example.com", "eva@example.com"]
        deliver_all()
        assert mail.outbox[0].recipients() == ["dev@example.com"]

    # It leaves the lock's file open.
    @pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
    def test_it_waits_for_nobody_who_is_sending(self) -> None:
        lock = Path(f"{default_lockfile}.lock")
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
            lock.write_text(str(other.pid))
            try:
                assert "django-post_office is sending now" in run("post-office")[1]
            finally:
                lock.unlink()
            other.communicate(b"\n")
        assert run("post-office")[2] == 0

    def test_templates_become_files_that_are_rendered(self, settings: Any, tmp_path: Path) -> None:
        folder = tmp_path / "templates"
        welcome = EmailTemplate.objects.create(
            name="account/welcome", subject="Hi {{ name }}", content="Hi {{ name }}!", html_content="<p>{{ name }}</p>"
        )
        welcome.translated_templates.create(language="pt-BR", subject="Olá {{ name }}", content="Olá {{ name }}!")
        EmailTemplate.objects.create(name="text", subject="Only text", content="Text")
        out, complaints, status = run("post-office", "--templates", str(folder), "--dry-run")
        assert ("7 files would be written." in out, complaints, status, folder.exists()) == (True, "", 0, False)
        assert "7 files were written." in run("post-office", "--templates", str(folder))[0]
        out = run("post-office", "--templates", str(folder))[0]
        assert ("0 files were written." in out, "7 files were there already." in out) == (True, True)

        settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [folder, *settings.TEMPLATES[0]["DIRS"]]}]
        content = render("account/welcome", {"name": "Ana & Zé"}, subject="", language="", timezone="")
        assert (content.subject, content.text) == ("Hi Ana & Zé", "Hi Ana & Zé!")
        assert content.html == "<p>Ana &amp; Zé</p>"
        translated = render("account/welcome", {"name": "Ana"}, subject="", language="pt-br", timezone="")
        assert (translated.subject, translated.text) == ("Olá Ana", "Olá Ana!")
        assert sorted(one.name for one in folder.iterdir()) == ["account", "text.txt", "text_subject.txt"]

    def test_a_template_that_cannot_be_a_file_is_named(self, tmp_path: Path) -> None:
        folder = tmp_path / "templates"
        folder.mkdir()
        (folder / "mine.txt").write_text("My own")
        for name in ("../evil", "/etc/evil", "a/../../evil", "evil\\up", ".evil", "a//b", "page.html", "", "a\nb"):
            EmailTemplate.objects.create(name=name, subject="x", content="x")
        EmailTemplate.objects.create(name="mine", subject="x", content="Theirs")
        EmailTemplate.objects.create(name="MINE2", subject="x", content="One")
        EmailTemplate.objects.create(name="mine2", subject="x", content="Other")
        EmailTemplate.objects.create(name="empty", subject="x")
        EmailTemplate.objects.create(name="odd", subject="x", content="x", language="de/../x")
        EmailTemplate.objects.create(name="inline", subject="x", content="{% load i18n post_office %}x")
        out, complaints, status = run("post-office", "--templates", str(folder))
        assert ("14 are left where they were." in complaints, status) == (True, 1)
        assert sorted(str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*.txt")) in (
            [f"templates/{kept}.txt", f"templates/{kept}_subject.txt", "templates/mine.txt"]
            for kept in ("MINE2", "mine2")
        )
        assert (folder / "mine.txt").read_text() == "My own"
        for reason in ("its name cannot be", "says something else", "neither text nor HTML", "its language", "tags of"):
            assert reason in complaints
