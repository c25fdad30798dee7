"""What a project does that follows a page on moving in: it ends without the old package, and with its tests green.

The project is made of the page's own blocks. Those whose first line says *before* are what it has at first; a later
block of the same file takes the place of the one before.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import textwrap
from pathlib import Path

import pytest

from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from tests.support.environments import Environment
from tests.support.moving_in import PAGES
from tests.support.pages import ROOT, Block, blocks

#: What is there before the page begins.
PROJECT = {
    "manage.py": """
        import os, sys
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
        from django.core.management import execute_from_command_line
        execute_from_command_line(sys.argv)
        """,
    "shop/__init__.py": "from .celery import app as celery_app\n",
    "shop/apps.py": """
        from django.apps import AppConfig

        class ShopConfig(AppConfig):
            name = "shop"

            def ready(self):
                from importlib.util import find_spec
                if find_spec("shop.signals"):
                    from . import signals
        """,
    "shop/celery.py": """
        import os
        from celery import Celery
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
        app = Celery("shop")
        app.config_from_object("django.conf:settings", namespace="CELERY")
        app.autodiscover_tasks()
        """,
    "shop/urls.py": "urlpatterns = []\n",
    "shop/settings.py": """
        from pathlib import Path
        BASE_DIR = Path(__file__).parent.parent
        SECRET_KEY = "only for this test, but as long as Django would have it be"
        ROOT_URLCONF = "shop.urls"
        INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "shop"]
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
        DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
        MEDIA_ROOT = BASE_DIR / "media"
        TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
        CELERY_BROKER_URL = "memory://"
        DEFAULT_FROM_EMAIL = "shop@example.com"
        EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        EMAIL_HOST, EMAIL_PORT, EMAIL_USE_TLS = "smtp.sparkpostmail.com", 587, True
        EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = "SMTP_Injection", "<SparkPost API key>"
        """,
}
#: By page: the package that it leaves and its module; what the project has queued by then; and who gets that.
LEAVES: dict[str, tuple[str, str, str, list[str]]] = {
    "from-anymail": ("django-anymail", "anymail", "", []),
    "from-celery-email": ("django-celery-email-reboot", "djcelery_email", "", []),
    "from-celery-task": ("", "shop.tasks", "", []),
    "from-django": ("", "", "", []),
    "from-django-mailer": ("django-mailer", "mailer", 'confirm("first@example.com", "Ana")', ["first@example.com"]),
    "from-post-office": (
        "django-post_office",
        "post_office",
        """
        from post_office.models import EmailTemplate

        template = EmailTemplate(name="confirmed", subject="Your order", content="Thank you, {{ name }}.")
        template.save()
        template.translated_templates.create(language="pt-br", subject="Seu pedido", content="Obrigado, {{ name }}.")
        confirm("first@example.com", "Ana", "pt-br")
        """,
        ["first@example.com"],
    ),
}
#: What a page has its readers type that is not run here, and why.
NOT_RUN = {
    "pip install congressy-mailer": "it is there already; its dependencies would come from the network",
    "celery -A shop inspect": "it asks workers, of which none runs",
    "python manage.py mailer sparkpost webhook create": "SparkPost would post to the site, which is not deployed",
}
#: Runs commands of manage.py one after the other in one process, as long as no file changes between them; then code.
RUN = """
import json, sys
import django
from django.core.management import execute_from_command_line

commands, code = json.loads(sys.argv[1])
for command in commands:
    print("$", *command, flush=True)
    execute_from_command_line(command)
if code:
    django.setup()
    from shop.orders import confirm

    exec(code)
"""


class Project:
    """A project whose maintainer does what a page says."""

    def __init__(self, folder: Path, server: LocalSparkPost, package: str = "") -> None:
        """Make what is there before the page begins, with this package installed."""
        self._folder = folder / "project"
        self.environment = Environment(folder, package)
        self._account = {
            "smtp.sparkpostmail.com": "localhost",
            "587": str(server.port),
            "<SparkPost API key>": server.password,
        }
        ours = ("DATABASE_URL", "BROKER_URL", "MAILER_TEST_DIRECTORY", "MAILER_TEST_MAILERS", "PYTHONPATH")
        self._variables = {
            **{name: value for name, value in os.environ.items() if name not in ours},
            **server.environment(),
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "PATH": os.pathsep.join([str(self.environment.programs), os.environ["PATH"]]),
            # A file that is written twice in a second with one size is told by neither time nor size, and what Python
            # has compiled of the first would stand for the second.
            "PYTHONDONTWRITEBYTECODE": "1",
            # Where django-post_office has its lock.
            "TMPDIR": str(folder),
            # What the old packages and Django's old settings deprecate.
            "PYTHONWARNINGS": "ignore",
        }
        #: Typed, and not run yet.
        self._commands: list[list[str]] = []
        self._before: dict[str, str] = {}
        for name, text in PROJECT.items():
            self._before[name] = textwrap.dedent(text)
            self._write(name, self._before[name])

    def do(self, block: Block) -> None:
        """Write it to its file, or run its commands."""
        if block.language == "console":
            self.type(*block.commands)
            return
        assert block.file, block.place
        self.run()
        # A page shows what it changes of a file that was there.
        self._write(block.file, f"{self._before.get(block.file, '')}\n{block.text}")

    def type(self, *commands: str) -> None:
        """Type commands; they are run before the next change of a file, or by :meth:`run`."""
        for command in commands:
            self._do_command(command)

    def _do_command(self, command: str) -> None:
        if any(command.startswith(beginning) for beginning in NOT_RUN):
            return
        if command.startswith("python manage.py "):
            self._commands.append(shlex.split(command)[1:])
            return
        self.run()
        if command.startswith("pip uninstall "):
            self._python("-m", *shlex.split(command))
            return
        program, name = command.split()
        assert program == "rm", command
        (self._folder / name).unlink()

    def run(self, code: str = "") -> str:
        """Run the commands that were typed since the last change, and then code that knows the project.

        Returns:
            What they have printed.
        """
        commands, self._commands = self._commands, []
        if not commands and not code:
            return ""
        done = self._python("-c", RUN, json.dumps([commands, textwrap.dedent(code)]))
        output = f"{done.stdout}{done.stderr}"
        tested = sum(command[1] == "test" for command in commands)
        assert len(re.findall(r"^Ran [1-9]\d* tests? in ", output, re.MULTILINE)) == tested, output
        return done.stdout

    def _python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self.environment.python, *arguments], cwd=self._folder, env=self._variables,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done

    def _write(self, name: str, text: str) -> None:
        for theirs, ours in self._account.items():
            text = re.sub(rf"(?<!\w){re.escape(theirs)}(?!\w)", ours, text)
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


#: Sends one mail more, delivers all of it, and looks for what the page has left.
AT_THE_END = """
import json
from importlib import import_module
from congressy_mailer.testing import deliver_all

def is_there(module):
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        return error.name != module
    return True

confirm("last@example.com", "Eva")
print(json.dumps([[message.state for message in deliver_all()], is_there({module!r})]))
"""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: Path(page).stem)
def test_a_project_that_follows_a_page_ends_without_the_old_package_and_with_green_tests(
    page: str, mail_server: LocalSparkPost, tmp_path: Path
) -> None:
    package, module, queue, recipients = LEAVES[Path(page).stem]
    mail_server.mailbox.clear()
    project = Project(tmp_path, mail_server, package)
    installed = project.environment.distributions()
    steps = list(blocks(ROOT / page, PAGES[page]))
    # Templates are shown where the code is that needs them.
    first_step = max(place for place, block in enumerate(steps) if block.is_before) + 1
    for block in steps[:first_step]:
        project.do(block)
    project.type("python manage.py test", "python manage.py migrate")
    project.run(queue)

    for block in steps[first_step:]:
        project.do(block)
    assert steps[-1].language == "console"
    assert steps[-1].commands[-1] == "python manage.py test"
    states, is_there = json.loads(project.run(AT_THE_END.format(module=module or "no_package")).splitlines()[-1])
    assert states == ["sent"] * (len(recipients) + 1)
    assert not is_there
    left = project.environment.distributions()
    assert [name.partition("==")[0] for name in installed - left] == [package] * bool(package)
    assert left <= installed
    mails = mail_server.mailbox.wait_for(len(states), 60)
    assert sorted(mail.recipients[0] for mail in mails) == sorted([*recipients, "last@example.com"])
    texts = [mail.message.get_body(("plain", "html")).get_content() for mail in mails]
    assert all("Thank you" in text or "Obrigado, Ana." in text for text in texts)


def test_every_command_that_is_not_run_stands_on_a_page() -> None:
    commands = [command for page in PAGES for block in blocks(ROOT / page, PAGES[page]) for command in block.commands]
    assert [beginning for beginning in NOT_RUN if not any(one.startswith(beginning) for one in commands)] == []


def test_what_django_celery_email_has_queued_is_sent_while_both_are_there(
    mail_server: LocalSparkPost, tmp_path: Path
) -> None:
    mail_server.mailbox.clear()
    project = Project(tmp_path, mail_server, "django-celery-email-reboot")
    both = [block for block in blocks(ROOT / "docs/how-to/from-celery-email.md") if "djcelery_email" in block.text]
    project.do(both[-1])
    assert both[-1].file == "shop/settings.py"
    project.do(next(block for block in blocks(ROOT / "docs/how-to/from-celery-email.md") if "confirm" in block.text))
    project.run("""
        from django.core.mail import EmailMessage
        from djcelery_email.tasks import send_emails
        from djcelery_email.utils import email_to_dict

        send_emails.apply([[email_to_dict(EmailMessage("Old", "Queued before.", None, ["ana@example.com"]))]])
        """)
    (mail,) = mail_server.mailbox.wait_for(1, 60)
    assert (mail.message["Subject"], mail.recipients) == ("Old", ("ana@example.com",))
