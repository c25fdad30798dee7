"""Each code block of the documentation works, or stands in a list with the reason why nobody can try it here."""

from __future__ import annotations

import copy
import re
import shlex
import sys
import time
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import celery.bin.celery
import pytest
from django.contrib.auth.models import Group, User
from django.core.checks import ERROR, run_checks
from django.core.management import call_command, get_commands, load_command_class
from django.db import transaction
from django.db.utils import ConnectionHandler
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.test import Client, TestCase
from django.urls import URLResolver, include, path
from django.urls.resolvers import RegexPattern

from congressy_mailer import send_mail, tasks
from testbed.processes import Process, free_port
from testbed.redis_server import find_redis_server
from tests.support.moving_in import PAGES as MOVING_IN
from tests.support.pages import PAGES, ROOT, Block, blocks
from tests.workers.test_first_hour import PAGES as FIRST_HOUR

#: By page and beginning: why a block is only looked at.
NOT_RUN = {
    ("docs/explanation/guarantees.md", "worker     content, final dot"): "a drawing",
    ("docs/explanation/journey.md", "view ── send_mail()"): "a drawing",
    ("docs/explanation/states.md", "send_mail(send_at=…)"): "a drawing",
    ("docs/how-to/deploying.md", 'DATABASES["default"]'): "a PgBouncer is needed; tests/deploying has one",
    ("docs/how-to/growing.md", "appendonly yes"): "the configuration of Redis",
    ("docs/how-to/monitoring.md", "scrape_configs:"): "the configuration of Prometheus",
    ("docs/how-to/monitoring.md", "from prometheus_client"): "the registry is that of the host's process",
    ("docs/how-to/monitoring.md", "from django.urls import path\nfrom health_check"): "the package is the host's",
    ("docs/how-to/retention.md", "import sentry_sdk"): "the package of a crash reporter is the host's",
    ("docs/how-to/testing.md", "from datetime import timedelta\n\nfrom django.utils import timezone\nfrom freezegun"): (
        "tests/third_parties has freezegun"
    ),
    ("docs/how-to/watching.md", "Message 0199c9a1"): "a line of a log",
    ("docs/how-to/watching.md", "[INFO/MainProcess] Mail leaves"): "lines of a log",
    ("docs/how-to/watching.md", "[INFO/ForkPoolWorker-2] Queue mailer"): "lines of a log",
}
#: Commands by their beginning: why they are read and not run.
ONLY_PARSED = {
    "python manage.py mailer sparkpost webhook": "SparkPost would post to the site",
    "python manage.py mailer sparkpost verify-unsubscribe": "a mail of SparkPost's is needed; it has tests of its own",
    "python manage.py mailer suppressions sync": "tests of its own run it against the local SparkPost",
    "python manage.py mailer show": "of a message that is not there",
    "python manage.py mailer retry": "of a message that is not there",
    "python manage.py mailer release": "of a message that is not there",
    "python manage.py mailer cancel": "of a message that is not there",
    "python manage.py mailer forget": "it asks a person; it has tests of its own",
    "python manage.py mailer doctor": "it finds a worker missing; it has tests of its own",
    "python manage.py mailer send-test": "it waits for a worker, of which none runs",
    "python manage.py check --deploy": "the settings of the tests are no deployment; test_first_hour runs it",
    "python -m congressy_mailer.testing.local_sparkpost": "it runs until it is stopped",
    "celery -A project worker": "it runs until it is stopped; test_first_hour starts it",
    "uvicorn project.asgi": "it runs until it is stopped; tests/deploying starts it",
    "celery -A project inspect": "it asks workers, of which none runs",
    "systemctl": "systemd does not run here; tests/deploying starts what the units start",
    "redis-cli": "the keys are those that test_broker finds",
    "make": "each is a run of its own",
}
#: What is in the spreadsheets that commands are given.
CSV = {
    "participants.csv": "Nome completo;E-mail\nAna Silva;ana@example.com\nEva Lima;eva@example.com\n",
    "gone.csv": "email\nold@example.com\n",
}
#: Templates that blocks name and their page does not show.
TEMPLATES = {
    "event/reminder.html": "<p>Hello {{ nome_completo }}{{ person }}</p>",
    "event/reminder_subject.txt": "{{ event }}: see you tomorrow",
    "news/october_subject.txt": "News",
    "welcome.txt": "Welcome",
    "welcome_subject.txt": "Welcome",
}


def register(request: HttpRequest) -> HttpResponse:
    """The view of a project that the page on testing tries."""
    send_mail("Your registration is confirmed", "Hello.", to=request.POST["email"])
    return HttpResponse()


#: Those of the tests, and what a page takes for granted.
urlpatterns = [path("register/", register), path("", include("tests.urls"))]


class Reader:
    """Tries the blocks of one page, one after the other, in a project that has what the page takes for granted."""

    def __init__(self, folder: Path, settings: Any, modules: pytest.MonkeyPatch) -> None:
        """Make what stands in for the project's own objects and files."""
        self._folder = folder
        self._modules = modules
        self._settings = settings
        self._mailer = settings.CONGRESSY_MAILER
        self._templates = folder / "templates"
        for name, text in {**TEMPLATES, "registration/confirmed_subject.txt": "Confirmed"}.items():
            self._write(self._templates / name, text)
        for name, text in CSV.items():
            self._write(folder / name, text)
        self._write(folder / "ticket.pdf", "%PDF-1.7")
        configured = copy.deepcopy(settings.TEMPLATES)
        configured[0]["DIRS"] = [self._templates, *configured[0]["DIRS"]]
        settings.TEMPLATES = configured
        self._names = self._stand_ins()

    def take_templates(self, page: list[Block]) -> None:
        """Write the templates of a page to their files; a block before them may name them."""
        for block in page:
            if block.language == "html+django":
                assert block.file.startswith("templates/"), block.place
                self._write(self._folder / block.file, block.text)

    def try_block(self, block: Block) -> None:
        """Run it, or check it, as its language asks for."""
        if block.language.startswith("{"):
            # A directive of Sphinx, which the test that builds the documentation runs.
            return
        if listed(block):
            return
        if not block.is_for_this_django:
            compile(block.text, block.place, "exec")
            return
        {"python": self._python, "html+django": self._template, "console": self._console, "text": self._text}[
            block.language
        ](block)

    def _python(self, block: Block) -> None:
        code = compile(block.text, block.place, "exec")
        if block.file.endswith("settings.py"):
            self._change_settings(block, code)
            return
        known = set(self._names)
        exec(code, self._names)  # noqa: S102
        if block.file == "interceptors.py":
            # The settings name it by its path.
            module = ModuleType("project.interceptors")
            vars(module).update(self._names)
            self._modules.setitem(sys.modules, "project", ModuleType("project"))
            self._modules.setitem(sys.modules, "project.interceptors", module)
        if block.file == "urls.py":
            assert URLResolver(RegexPattern(r"^/"), self._names["urlpatterns"]).check() == []
        for name in set(self._names) - known:
            case = self._names[name]
            if isinstance(case, type) and issubclass(case, TestCase) and case.__module__ == "page":
                self._run_case(case)

    def _run_case(self, case: type[TestCase]) -> None:
        """Run its tests in the transaction of this one, and roll back what they store."""
        names = unittest.defaultTestLoader.getTestCaseNames(case)
        assert names
        for name in names:
            one = case(name)
            one.client = Client()
            with transaction.atomic():
                getattr(one, name)()
                transaction.set_rollback(True)

    def _change_settings(self, block: Block, code: Any) -> None:
        """Apply what a block sets, also for the blocks behind it, and have the system checks look at it."""
        names: dict[str, Any] = {"BASE_DIR": self._folder, "__builtins__": __builtins__}
        exec(code, names)  # noqa: S102
        changed = {name: value for name, value in names.items() if name.isupper() and name != "BASE_DIR"}
        assert changed, block.place
        if "MAILERS" in changed:
            for name in [name for name in dir(self._settings) if name.startswith("EMAIL_")]:
                delattr(self._settings, name)
        elif any(name.startswith("EMAIL_") for name in changed) and hasattr(self._settings, "MAILERS"):
            del self._settings.MAILERS
        if databases := changed.pop("DATABASES", None):
            # The tests' own cannot be changed any more.
            with ConnectionHandler(databases)["default"].cursor() as cursor:
                cursor.execute("SELECT 1")
        if ours := changed.pop("CONGRESSY_MAILER", None):
            self._settings.CONGRESSY_MAILER = {**self._mailer, **ours}
        for name, value in changed.items():
            setattr(self._settings, name, value)
        found = [check for check in run_checks(tags=["congressy_mailer"]) if check.level >= ERROR]
        assert found == [], block.place

    def _template(self, block: Block) -> None:
        engines["django"].from_string(block.text)

    def _console(self, block: Block) -> None:
        assert block.commands, block.place
        for command in block.commands:
            self._parse(command)
            if not any(command.startswith(beginning) for beginning in ONLY_PARSED):
                call_command(*shlex.split(command.partition(" > ")[0])[2:])

    def _parse(self, command: str) -> None:
        """Whether the program knows these arguments."""
        program, *arguments = shlex.split(command.partition(" > ")[0])
        if program == "make":
            assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
        elif (program, arguments[0]) == ("python", "manage.py"):
            name = arguments[1]
            assert name in get_commands(), command
            application = get_commands()[name]
            parser = load_command_class(application, name).create_parser("manage.py", name)
            parser.parse_args(arguments[2:])
        elif program == "celery":
            assert arguments[:2] == ["-A", "project"], command
            assert arguments[2] in celery.bin.celery.celery.commands, command
        else:
            assert program in ("redis-cli", "systemctl", "uvicorn") or arguments[0] == "-m", command

    def _text(self, block: Block) -> None:
        """A configuration of Redis, with which one starts."""
        configuration = self._folder / "redis.conf"
        self._write(configuration, block.text)
        server = Process(
            "Redis",
            [find_redis_server(), str(configuration), "--port", str(free_port()), "--dir", str(self._folder)],
            self._folder / "redis.log",
        )
        try:
            server.wait_until(lambda: "eady to accept connections" in server.output(), 20)
        finally:
            server.stop()

    def _stand_ins(self) -> dict[str, Any]:
        ana = User.objects.create(username="ana", first_name="Ana", email="ana@example.com")
        User.objects.create(username="eva", first_name="Eva", email="eva@example.com")
        event = Group.objects.create(name="Semana da Computação")
        event.participants = User.objects.all()  # type: ignore[attr-defined]
        ticket = User.objects.get(username="ana")
        ticket.__dict__.update(code="A-1042", language="pt-br", pdf_path=self._folder / "ticket.pdf")
        return {
            "__name__": "page",
            "addresses": ["ana@example.com", "eva@example.com"],
            "customer": ana,
            "event": event,
            "form": SimpleNamespace(cleaned_data={"email": "ana@example.com"}),
            "invitation": "BEGIN:VCALENDAR",
            "logo": b"\x89PNG",
            "participant": ana,
            "registration": ana,
            "ticket": ticket,
            "user": ana,
            "voucher": b"%PDF-1.7",
        }

    def _write(self, file: Path, text: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def listed(block: Block) -> tuple[str, str] | None:
    """Its key in the list of what is not run, if it has one."""
    page, text = str(block.page.relative_to(ROOT)), block.text.lstrip()
    return next((key for key in NOT_RUN if key[0] == page and text.startswith(key[1])), None)


#: Pages that are followed in a project of their own, and the heading with which that ends.
FOLLOWED = {**FIRST_HOUR, **MOVING_IN, "docs/how-to/django-tenants.md": ""}


def blocks_that_nobody_follows(page: Path) -> list[Block]:
    """All blocks but those of the part that other tests follow from its beginning to its end."""
    name = str(page.relative_to(ROOT))
    if name not in FOLLOWED:
        return list(blocks(page))
    return list(blocks(page))[len(list(blocks(page, FOLLOWED[name]))) :]


@pytest.fixture
def reader(
    tmp_path: Path, settings: Any, published: list[str], celery_settings: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Reader]:  # fmt: skip
    """In a folder of its own; nothing is published."""
    celery_settings(broker_url="redis://localhost:6379/0", broker_write_url="redis://localhost:6379/0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARKPOST_API_KEY", "key")
    settings.ROOT_URLCONF = __name__
    one = Reader(tmp_path, settings, monkeypatch)
    # What health asks for: a worker has swept.
    tasks.sweep(time.time())
    return one


@pytest.mark.django_db
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_block_of_a_page_works(reader: Reader, page: Path) -> None:
    there = blocks_that_nobody_follows(page)
    reader.take_templates(there)
    for block in there:
        try:
            reader.try_block(block)
        except Exception as error:
            error.add_note(f"in the block at {block.place}")
            raise


def test_each_block_and_command_that_is_not_run_exists() -> None:
    there = [block for page in PAGES for block in blocks(page)]
    assert set(NOT_RUN) - {key for block in there if (key := listed(block))} == set()
    commands = [command for block in there for command in block.commands]
    assert [beginning for beginning in ONLY_PARSED if not any(one.startswith(beginning) for one in commands)] == []
