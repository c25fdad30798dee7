"""A project that is deployed as the how-to has it, with servers of the tests' own."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urljoin

from congressy_mailer.testing.local_sparkpost.mailbox import ReceivedMail
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.processes import Process, free_port
from testbed.redis_server import find_redis_server
from tests.conftest import wait_for
from tests.deploying.files import FOLDER, PLACE, compose
from tests.support.pages import ROOT, blocks

#: What startproject's settings lack of a project that sends mail.
_SETTINGS = """
INSTALLED_APPS += ["congressy_mailer"]
CONGRESSY_EMAIL_SENDER = "mail@congressy.net"
MAILERS = {
    "default": {
        "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "OPTIONS": {
            "host": "localhost", "port": int(os.environ.get("SMTP_PORT", 25)), "username": "SMTP_Injection",
            "password": os.environ.get("SMTP_PASSWORD"), "use_tls": True,
        },
    },
}
"""
_URLS = """
from django.contrib import admin
from django.http import HttpResponse
from django.urls import path

from congressy_mailer import asend_mail, send_mail


def send(request):
    return HttpResponse(send_mail("Synchronous", "Hello.", to="ana@example.com").pk)


async def asend(request):
    return HttpResponse((await asend_mail("Asynchronous", "Hello.", to="ana@example.com")).pk)


urlpatterns = [path("send/", send), path("asend/", asend), path("admin/", admin.site.urls)]
"""


#: Seconds for a process to come up on a busy machine.
START = 90


class Site:
    """A project of Django's own making, a PostgreSQL, and the Redis of the compose file."""

    def __init__(self, folder: Path, database_port: int, smtp: LocalSparkPost, *, settings: str = "") -> None:
        """Make the project's files, and start Redis; nothing else runs yet.

        Args:
            folder: for all of its files.
            database_port: of the PostgreSQL, or of what stands before it.
            smtp: the mail server.
            settings: further lines of its settings.
        """
        self.folder = folder
        self._logs = folder / "logs"
        self._logs.mkdir(parents=True)
        self._processes: list[Process] = []
        self.redis_port = free_port()
        self.environment = {
            "SECRET_KEY": "of a test",
            "ALLOWED_HOSTS": "127.0.0.1",
            "DATABASE_HOST": "127.0.0.1",
            "DATABASE_PORT": str(database_port),
            "DATABASE_NAME": "mailer",
            "DATABASE_USER": "postgres",
            "DATABASE_PASSWORD": "any",
            "CELERY_BROKER_URL": f"redis://127.0.0.1:{self.redis_port}/0",
            "JOURNAL_DIRECTORY": str(folder / "journal"),
            "SMTP_PORT": str(smtp.port),
            "SMTP_PASSWORD": smtp.password,
            **smtp.environment(),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "project.settings",
        }
        self.run("django-admin", "startproject", "project", ".")
        for block in blocks(ROOT / "docs" / "quickstart.md"):
            if block.file in ("project/celery.py", "project/__init__.py"):
                (folder / block.file).write_text(block.text)
        file = folder / "project" / "settings.py"
        file.write_text("\n".join([file.read_text(), (FOLDER / "settings.py").read_text(), _SETTINGS, settings]))
        (folder / "project" / "urls.py").write_text(_URLS)
        program, *options = shlex.split(compose()["services"]["redis"]["command"])
        assert program == "redis-server"
        where = ["--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(folder)]
        redis = self.start([find_redis_server(), *options, *where])
        redis.wait_until(lambda: "eady to accept connections" in redis.output(), 30)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the project to its end."""
        environment = {**os.environ, **self.environment}
        if command[0] == "django-admin":
            del environment["DJANGO_SETTINGS_MODULE"]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    def start(self, command: Sequence[str], **environment: str) -> Process:
        """Start a command that goes on."""
        log = self._logs / f"{len(self._processes)}.log"
        process = Process(
            " ".join(command), command, log, environment={**self.environment, **environment}, directory=self.folder
        )
        self._processes.append(process)
        return process

    def get(self, port: int, page: str, host: str = "127.0.0.1") -> str:
        """What a web server answers, once it does."""
        address = f"http://127.0.0.1:{port}/{page}"
        with urllib.request.urlopen(urllib.request.Request(address, headers={"Host": host}), timeout=30) as answer:
            return str(answer.read().decode())

    def style_sheets(self, port: int) -> dict[str, str]:
        """What a web server answers for each style sheet of the admin's first page, by its path."""
        page = self.get(port, "admin/login/")
        paths = [urljoin("/admin/login/", path) for path in re.findall(r'<link rel="stylesheet" href="([^"]+)"', page)]
        return {path.removeprefix("/"): self.get(port, path.removeprefix("/")) for path in paths}

    def close(self) -> None:
        """End everything that was started."""
        for process in reversed(self._processes):
            process.stop()


def here(command: list[str], port: int = 0) -> list[str]:
    """A command with this machine's programs in place of the deployment's, and on a port of the loopback."""
    program, *arguments = command
    programs = Path(sys.executable).parent
    if Path(program).is_absolute():
        assert Path(program).parent == PLACE / "venv" / "bin"
    addresses = [re.sub(r"^[\d.]+:8000$", f"127.0.0.1:{port}", argument) for argument in arguments]
    return [str(programs / Path(program).name), *addresses]


def wait_for_worker(worker: Process, count: int = 1) -> None:
    worker.wait_until(lambda: worker.output().count(" ready.") >= count, START)


def wait_for_port(process: Process, port: int) -> None:
    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    process.wait_until(listens, START)


def arrives(smtp: LocalSparkPost, subject: str, count: int = 1) -> list[ReceivedMail]:
    def there() -> list[ReceivedMail]:
        return [mail for mail in smtp.mailbox if mail.message["Subject"] == subject]

    return wait_for(lambda: len(there()) >= count and there(), START, f"the mail {subject!r}")
