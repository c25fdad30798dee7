"""Where the site breaks, the page of the error and the mail to its admins both come."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import django
import pytest

from congressy_mailer.testing.local_sparkpost.mailbox import ReceivedMail
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from tests.support.drop_in import WORLDS

ADMINS = ["root@example.com"] if django.VERSION >= (6, 0) else [("Root", "root@example.com")]

#: What a server of WSGI asks of the site, and what the site answers.
REQUEST = """
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.test import RequestFactory

site = get_wsgi_application()
settings.ADMINS = {admins!r}
site(RequestFactory().get("{page}").environ, lambda status, headers, exc_info=None: print(status))
"""


def answer(page: str, world: str, server: LocalSparkPost, database: Path) -> str:
    """Ask a process of its own for a page."""
    server.mailbox.clear()
    environment = {
        **os.environ,
        **server.environment(),
        "DJANGO_SETTINGS_MODULE": "tests.third_parties.settings",
        "DATABASE_URL": f"sqlite://{database}",
        "MAILER_TEST_DIRECTORY": os.environ["TMPDIR"],
        "MAILER_TEST_SMTP_PORT": str(server.port),
        "MAILER_TEST_SMTP_PASSWORD": server.password,
        "MAILER_TEST_MAILERS": "1" if world == "MAILERS" else "",
    }
    done = subprocess.run(
        [sys.executable, "-c", REQUEST.format(admins=ADMINS, page=page)], env=environment,
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.strip(), done.stderr
    return done.stdout.strip()


def content(mail: ReceivedMail) -> str:
    assert mail.recipients == ("root@example.com",)
    return str(mail.message.get_content())


@pytest.mark.parametrize("world", WORLDS)
def test_the_database_is_away(mail_server: LocalSparkPost, tmp_path: Path, world: str) -> None:
    away = tmp_path / "no-folder" / "db.sqlite3"
    assert answer("/users/", world, mail_server, away) == "500 Internal Server Error"
    (mail,) = mail_server.mailbox
    assert "unable to open database file" in content(mail)


@pytest.mark.parametrize("world", WORLDS)
def test_the_transaction_is_broken(mail_server: LocalSparkPost, tmp_path: Path, world: str) -> None:
    assert answer("/broken/", world, mail_server, tmp_path / "db.sqlite3") == "500 Internal Server Error"
    # Reported by a logger, by hand, and by Django for the page. None of them waits for a worker, or for the commit.
    assert [content(mail) for mail in mail_server.mailbox]
    assert [mail.message["Subject"] for mail in mail_server.mailbox] == [
        "[Django] ERROR: In a broken transaction",
        "[Django] By hand",
        "[Django] ERROR (EXTERNAL IP): Internal Server Error: /broken/",
    ]
