"""``manage.py mailer send-bulk``: from a file to mails that are stored, and what people see meanwhile."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.conf import settings
from django.core import mail
from django.core.management import CommandError, call_command
from django.test import override_settings

from congressy_mailer.management import bulk_progress, bulk_send
from congressy_mailer.models import Attachment, Batch, Message, State
from congressy_mailer.submission import batch_writer
from tests.conftest import database_url, wait_for
from tests.support.mails import deliver_batch

pytestmark = [
    pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("english", "published"),
]  # fmt: skip

LOCMEM = override_settings(EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend")

PEOPLE = "Nome;E-mail;Cidade\nAna;ana@example.com;Goiânia\nBia;bia@example.com;Natal\nCaio;caio@example.com;Belém\n"

WRONG = "Davi;davi@;Recife\nEva;eva@example.com;Olinda\n;;\nFé;;Sé\n"


class Done(NamedTuple):
    """What a run has written, what it warned of, and its exit status."""

    out: str
    warnings: str
    complaint: str
    status: int


@pytest.fixture
def people(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    path.write_text(PEOPLE, encoding="cp1252")
    return path


def send_bulk(path: Path, *options: str, template: str = "mail/reminder") -> Done:
    out, warnings = StringIO(), StringIO()
    try:
        call_command("mailer", "send-bulk", template, str(path), *options, stdout=out, stderr=warnings)
    except CommandError as error:
        return Done(out.getvalue(), warnings.getvalue(), str(error), error.returncode)
    except SystemExit as exit:
        return Done(out.getvalue(), warnings.getvalue(), "", int(exit.code or 0))
    return Done(out.getvalue(), warnings.getvalue(), "", 0)


def addresses() -> list[str]:
    return sorted(to[0] for to in Message.objects.values_list("to", flat=True))


@pytest.mark.email_settings
@LOCMEM
def test_each_row_becomes_a_mail_with_its_columns_in_it(people: Path, tmp_path: Path) -> None:
    (tmp_path / "mapa.pdf").write_bytes(b"%PDF map")
    done = send_bulk(
        people, "--name-column", "nome", "--context", "evento=Feira = feira", "--language", "pt-br", "--from",
        "Feira <feira@example.com>", "--reply-to", "a@example.com", "--reply-to", "b@example.com", "--transactional",
        "--attach", str(tmp_path / "mapa.pdf"),
    )  # fmt: skip
    assert (done.complaint, done.warnings, done.status) == ("", "", 0)
    lines = done.out.splitlines()
    assert lines[:3] == [
        "people.csv: 3 rows, Windows-1252, separated by semicolons.",
        "3 mails are on their way.",
        "The same command sends nobody a second mail. To send all of it again, add --key with a new key.",
    ]
    batch = Batch.objects.get()
    assert lines[3:] == [f"Key: {batch.key}"]
    assert (batch.transactional, batch.language, batch.stored_at is not None) == (True, "pt-br", True)
    assert Attachment.objects.get().batch_id == batch.pk
    deliver_batch(Batch.objects.get())
    sent = {one.to[0]: one for one in mail.outbox}
    assert set(sent) == {f"{name} <{name.lower()}@example.com>" for name in ("Ana", "Bia", "Caio")}
    bia = sent["Bia <bia@example.com>"]
    assert bia.subject == "Feira = feira: até amanhã, Bia"
    assert bia.body.strip() == "Olá, Bia! A Feira = feira começa amanhã em Natal."
    assert (bia.from_email, bia.reply_to) == ("Feira <feira@example.com>", ["a@example.com", "b@example.com"])


def test_a_second_run_repeats_nothing_and_says_how_to_send_again(people: Path) -> None:
    send_bulk(people, "--context", "a=1", "--context", "b=2")
    first = Batch.objects.get()
    # In another order, and marketing or not: it says the same.
    done = send_bulk(people, "--context", "b=2", "--context", "a=1", "--transactional", "--email-column", "e-mail")
    assert (done.status, Batch.objects.get().pk, len(addresses())) == (0, first.pk, 3)
    assert re.search(r"This was stored on \S+ .*, 3 mails\. Nothing is sent again; for that, add --key ", done.out)
    assert send_bulk(people, "--context", "a=1", "--context", "b=2", "--key", "again").status == 0
    assert len(addresses()) == 6


@pytest.mark.parametrize(
    "options",
    [
        ["--subject", "x"], ["--context", "a=1"], ["--language", "en"], ["--from", "a@example.com"],
        ["--reply-to", "a@example.com"], ["--name-column", "Nome"], ["--attach", __file__],
    ],
    ids=lambda options: options[0],
)  # fmt: skip
def test_what_says_something_else_is_another_sending(options: list[str], people: Path) -> None:
    send_bulk(people)
    assert send_bulk(people, *options).status == 0
    assert (Batch.objects.count(), len(addresses())) == (2, 6)


def test_another_file_or_template_is_another_sending(people: Path) -> None:
    send_bulk(people)
    send_bulk(people, "--subject", "x", template="mail/hello")
    people.write_text(PEOPLE + "Davi;davi@example.com;Recife\n")
    send_bulk(people)
    assert (Batch.objects.count(), len(addresses())) == (3, 10)


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Press Ctrl-C when so many rows have been read."""

    @contextmanager
    def progress_bar(*_: Any) -> Iterator[Callable[[int], None]]:
        rows = iter(range(after))

        def advance(_: int) -> None:
            if next(rows, None) is None:
                raise KeyboardInterrupt

        yield advance

    monkeypatch.setattr(bulk_send, "progress_bar", progress_bar)


def test_the_same_command_goes_on_after_an_interruption(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people.write_text("E-mail\n" + "".join(f"ana{number}@example.com\n" for number in range(9)))
    monkeypatch.setattr(batch_writer, "_CHUNK", 4)
    with monkeypatch.context() as context:
        interrupt(context, 0)
        done = send_bulk(people)
        assert (done.warnings, done.status) == ("Interrupted. Nothing was stored.\n", 130)
        interrupt(context, 6)
        done = send_bulk(people)
    assert done.warnings == (
        "Interrupted. 4 of 9 mails are stored, and will be sent. The same command goes on with the rest.\n"
    )
    assert (done.status, len(addresses())) == (130, 4)
    done = send_bulk(people)
    assert (done.status, done.warnings) == (0, "")
    assert "An earlier run was interrupted after 4 mails. This goes on with the rest." in done.out
    assert "9 mails are on their way." in done.out
    assert addresses() == [f"ana{number}@example.com" for number in range(9)]
    assert Batch.objects.get().stored_at is not None


def test_a_dry_run_shows_the_first_mail_and_stores_nothing(people: Path) -> None:
    people.write_text("Nome,E-mail,1ª vez\nZé,ze@,sim\nAna & Bia,ana@example.com,não\n")
    done = send_bulk(people, "--dry-run", "--context", "cidade=Natal")
    assert (done.complaint, done.status) == ("", 0)
    assert done.out == (
        "people.csv: 2 rows, 1 of them wrong, UTF-8, separated by commas.\n"
        "Variables of the template:\n"
        '  {{ nome }}: column "Nome"\n'
        '  {{ e_mail }}: column "E-mail"\n'
        '  {{ column_1a_vez }}: column "1ª vez"\n'
        "  {{ cidade }}: Natal\n"
        "The first mail:\n"
        "To: ana@example.com\n"
        "Subject: Semana: até amanhã, Ana & Bia\n"
        "\n"
        "Olá, Ana & Bia! A Semana começa amanhã em Natal.\n"
        "Nothing was stored. 1 mail would be sent.\n"
    )
    assert done.warnings == "1 row is left out:\n  row 2, column \"E-mail\": 'ze@' is not one mail address\n"
    assert not Batch.objects.exists()


def test_rows_that_are_wrong_are_left_out_and_listed(people: Path) -> None:
    people.write_text(PEOPLE + WRONG)
    done = send_bulk(people)
    assert (done.complaint, done.status) == ("", 0)
    assert done.warnings == (
        "2 rows are left out:\n"
        "  row 5, column \"E-mail\": 'davi@' is not one mail address\n"
        '  row 8, column "E-mail": it is empty\n'
        "Once they are corrected, send only them, in a separate file: a changed file is sent to everybody in it.\n"
    )
    assert done.out.startswith("people.csv: 6 rows, 2 of them wrong, UTF-8, separated by semicolons.\n")
    assert addresses() == [f"{name}@example.com" for name in ("ana", "bia", "caio", "eva")]


def test_the_first_twenty_are_listed_and_the_rest_counted(people: Path) -> None:
    people.write_text(PEOPLE + "x;y;z\n" * 1234)
    lines = send_bulk(people).warnings.splitlines()
    assert (lines[0], lines[21], len(lines)) == ("1,234 rows are left out:", "  and 1,214 more", 23)


def test_nobody_gets_two_mails_and_rows_that_repeat_an_address_are_listed(people: Path) -> None:
    more = "Joana;joana@example.com;x\nANA;ANA@example.com;y\nOutra;Ana <ana@example.com>;z\nBia;bia@example.com;w\n"
    people.write_text(PEOPLE + more)
    done = send_bulk(people, "--name-column", "Nome")
    assert done.status == 0
    assert done.warnings == (
        "3 rows have an address that another row has, and are left out:\n"
        "  row 6, ana@example.com\n  row 7, ana@example.com\n  row 8, bia@example.com\n"
    )
    assert len(addresses()) == 4


def test_where_nothing_can_be_sent_the_exit_status_says_so(people: Path) -> None:
    people.write_text("E-mail\n")
    assert send_bulk(people)[2:] == ("No mail can be sent: there is no row with an address.", 1)
    people.write_text("E-mail\nana@\n")
    for options in ([], ["--dry-run"]):
        done = send_bulk(people, *options)
        assert done[2:] == ("No mail can be sent: every row is left out.", 1)
        assert "row 2, column" in done.warnings
    assert not Batch.objects.exists()


@pytest.mark.parametrize(
    ("options", "template", "complaint"),
    [
        ([], "there/is/none", "There is no template 'there/is/none'."),
        ([], "mail/hello", "The template 'mail/hello' has no subject"),
        (["--from", "x"], "mail/reminder", "from_email is not "),
        (["--attach", "none.pdf"], "mail/reminder", "attachments[0]: it cannot be read: FileNotFoundError"),
        (["--email-column", "x"], "mail/reminder", 'people.csv, row 1: there is no column "x".'),
        (["--context", "nome=x"], "mail/reminder", '--context nome: the column "Nome" is that variable.'),
        (["--context", "a=1", "--context", "a=2"], "mail/reminder", "--context a is given twice."),
        (["--context", "a"], "mail/reminder", 'Error: argument --context: "a" is not of the form NAME=VALUE.'),
        (["--key", ""], "mail/reminder", "idempotency_key must be"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_stored(
    options: list[str], template: str, complaint: str, people: Path
) -> None:
    done = send_bulk(people, *options, template=template)
    assert done.complaint.startswith(complaint)
    assert done.status == 1
    assert not Batch.objects.exists()


def test_a_file_that_is_broken_at_its_end_sends_nothing(people: Path) -> None:
    people.write_text(PEOPLE + '"Davi;davi@example.com;x\n')
    assert send_bulk(people).complaint.startswith("people.csv, row 5: a quotation mark")
    assert not Batch.objects.exists()


def test_a_project_that_cannot_send_is_told_so(people: Path) -> None:
    with override_settings(CONGRESSY_EMAIL_SENDER="nobody"):
        assert "congressy_mailer.E004" in send_bulk(people).complaint


def test_a_template_that_fails_is_told_with_its_row(people: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.txt").write_text("{{ nome|add:none }}")
    (tmp_path / "broken_subject.txt").write_text("x")
    with override_settings(TEMPLATES=[{**settings.TEMPLATES[0], "DIRS": [tmp_path]}]):
        done = send_bulk(people, "--dry-run", template="broken")
        assert done[2:] == ("Row 2: broken.txt, line 1: VariableDoesNotExist: no variable 'none'", 1)
        (tmp_path / "unfinished.txt").write_text("{% if nome %}")
        done = send_bulk(people, "--subject", "x", template="unfinished")
    # Django 6.1 names the file as well.
    assert done[2].endswith("Unclosed tag on line 1: 'if'. Looking for one of: elif, else, endif.")
    assert done[3] == 1
    assert not Batch.objects.exists()


def test_ctrl_c_while_the_file_is_read_ends_in_silence(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bulk_send, "summarise", press)
    assert send_bulk(people) == Done("", "", "", 130)


def test_what_was_cancelled_or_is_another_s_is_not_continued(people: Path) -> None:
    send_bulk(people, "--key", "k")
    done = send_bulk(people, "--key", "k", "--subject", "x", template="mail/hello")
    assert done[2:] == (
        'The key "k" was used with the template "mail/reminder". Give another one, with --key.', 1,
    )  # fmt: skip
    Batch.objects.get().cancel()
    done = send_bulk(people, "--key", "k")
    assert done.status == 1
    assert re.fullmatch(r"This was cancelled on .*\. To send it anyway, give it a new key with --key\.", done[2])


@pytest.mark.parametrize(("answer", "count"), [("y", 3), (" YES ", 3), ("", 0), ("n", 0), (EOFError, 0)])
def test_on_a_terminal_it_asks_first(answer: Any, count: int, people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        if answer is EOFError:
            raise EOFError
        return str(answer)

    monkeypatch.setattr("builtins.input", ask)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    done = send_bulk(people)
    assert asked == ["Send 'mail/reminder' to 3 recipients? [y/N] "]
    assert (len(addresses()), done.status, "Nothing was sent." in done.out) == (count, 0, count == 0)
    asked.clear()
    assert send_bulk(people, "--no-input").status == 0
    assert (len(addresses()), asked) == (3, [])


@pytest.mark.email_settings
@LOCMEM
def test_it_waits_until_the_mails_are_sent(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_progress.time, "sleep", lambda _: deliver_batch(Batch.objects.get()))
    done = send_bulk(people, "--wait")
    assert (done.status, done.out.splitlines()[-1]) == (0, "sent: 3")
    # That no worker runs would otherwise show in nothing but a bar that stands still.
    assert done.warnings == "No worker has ever swept: start one with celery -A project worker.\n"
    done = send_bulk(people, "--wait")
    assert (done.status, done.warnings, done.out.splitlines()[-1]) == (0, "", "sent: 3")
    Message.objects.filter(to=["ana@example.com"]).update(state=State.FAILED)
    assert send_bulk(people, "--wait").warnings == "sent: 2, failed: 1\n"
    Message.objects.update(state=State.FAILED)
    assert send_bulk(people, "--wait")[2:] == ("failed: 3", 1)


def test_ctrl_c_ends_the_watching_and_nothing_else(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bulk_progress.time, "sleep", press)
    done = send_bulk(people, "--wait")
    assert (done.status, done.out.splitlines()[-1]) == (
        0, "The mails go on being sent. The same command with --wait shows them again.",
    )  # fmt: skip
    assert set(Message.objects.values_list("state", flat=True)) == {State.QUEUED}


class Terminal:
    """A terminal with a command in it."""

    def __init__(self, arguments: list[str], columns: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {
            **{name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")},
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "DATABASE_URL": database_url(),
            "MAILER_TEST_WORKER": "1",
            "MAILER_TEST_DIRECTORY": str(settings.SCRATCH),
            "BROKER_URL": "memory://",
            "TERM": "xterm",
        }
        # As a shell starts a command in the foreground: a test run in the background ignores Ctrl-C, and so would this.
        interruptible = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        script = "import sys, tests.project; from django.core.management import execute_from_command_line as run"
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{interruptible}; {script}; run(sys.argv)", "mailer", *arguments],
            stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        os.close(slave)
        os.set_blocking(self._master, False)
        self._written = b""

    def text(self) -> str:
        """Everything that has been written so far."""
        # A terminal that nobody writes to any more cannot be read.
        with suppress(BlockingIOError, OSError):
            while some := os.read(self._master, 65536):
                self._written += some
        return self._written.decode(errors="replace")

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


def words(text: str) -> str:
    """The text without its lines."""
    return " ".join(text.split())


@pytest.mark.parametrize("columns", [80, 40])
def test_on_a_terminal_there_are_a_question_and_bars_in_portuguese(columns: int, people: Path) -> None:
    terminal = Terminal(["send-bulk", "mail/reminder", str(people), "--wait"], columns)
    try:
        wait_for(lambda: "Enviar 'mail/reminder' a 3 destinatários? [s/N]" in words(terminal.text()))
        assert not Message.objects.exists()
        terminal.type("s\n")
        wait_for(lambda: "Enviando" in terminal.text())
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(20) == 0
        text = terminal.text()
    finally:
        terminal.close()
    assert "3 e-mails estão a caminho." in words(text)
    assert "Os e-mails continuam sendo enviados." in words(text)
    lines = [re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", line).rstrip() for line in re.split(r"[\r\n]+", text)]
    assert [line for line in lines if len(line) > columns] == []
    bars = [re.sub("[█░]+", "#", line) for line in lines if re.match("(Gravando|Enviando) ", line)]
    assert (bars[0], bars[-1]) == ("Gravando # 0/3", "Enviando # 0/3")
    assert "Gravando # 3/3" in bars
    assert len(addresses()) == 3


@override_settings(CONGRESSY_MAILER={"LISTS": {"news": "News"}, "SITE_URL": "https://example.com"})
def test_a_list_and_a_campaign_go_with_the_mails(people: Path) -> None:
    assert send_bulk(people, "--list", "news", "--campaign", "Edição de maio").complaint == ""
    batch = Batch.objects.get()
    assert (batch.list_id, batch.campaign) == ("news", "Edição de maio")


def test_a_list_that_is_not_there_is_told_before_anything_is_stored(people: Path) -> None:
    done = send_bulk(people, "--list", "news")
    assert "list_id" in done.complaint
    assert not Batch.objects.exists()
