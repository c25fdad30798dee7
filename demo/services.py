"""Everything that the demo runs on: Redis, a mail server, a site and a worker, started and ended together."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import django
import requests
from django.core.management import call_command

from congressy_mailer.testing.local_sparkpost.events import CLASSES
from congressy_mailer.testing.local_sparkpost.startable import Startable
from testbed.processes import Process, ProcessError
from testbed.redis_server import EmbeddedRedis

#: Where the package ``demo`` lies; the child processes must find it wherever they run.
_ROOT = Path(__file__).resolve().parent.parent
#: A machine with two busy cores needs a few seconds for each; this is for much slower ones.
_START_SECONDS = 60.0

_MAIL_SERVER = "congressy_mailer.testing.local_sparkpost"

#: What starts a worker in any project.
WORKER_COMMAND = ["celery", "-A", "demo.project", "worker", "-c", "2"]


class Services(Startable):
    """The services of one run, as a context manager: all up on entry, all gone on exit, whatever happens between."""

    redis: EmbeddedRedis
    mail_server: Process
    worker: Process
    site: Process
    #: Settings of the project.
    settings = "demo.project.settings"

    def __init__(self, directory: Path, *, site_port: int = 0) -> None:
        """Prepare a run.

        Args:
            directory: an empty folder for everything that is stored.
            site_port: first port to try for the site; 0 for any.
        """
        self.directory = directory
        self.mails = directory / "mails"
        self.admin_password = secrets.token_urlsafe(9)
        self.mail_port = 0
        self.site_port = 0
        self.api_host = ""
        self._webhook_password = secrets.token_urlsafe(16)
        self._first_site_port = site_port
        self._stack = ExitStack()
        self._environment: dict[str, str] = {}

    @property
    def address(self) -> str:
        """Of the site, without a slash at its end."""
        return f"http://127.0.0.1:{self.site_port}"

    def start(self) -> None:
        self.redis = self._stack.enter_context(EmbeddedRedis())
        self.mail_server = self._start_process("mail server", ["-m", _MAIL_SERVER, "--directory", str(self.mails)])
        told = self.mail_server.first_line(_START_SECONDS)
        self.mail_port = told["port"]
        self.api_host = told["api_host"]
        self._environment = {
            "DJANGO_SETTINGS_MODULE": self.settings,
            "DEMO_DIRECTORY": str(self.directory),
            "DEMO_SECRET_KEY": secrets.token_urlsafe(32),
            "DEMO_REDIS_URL": self.redis.url,
            "DEMO_EMAIL_HOST": told["host"],
            "DEMO_EMAIL_PORT": str(told["port"]),
            "DEMO_EMAIL_PASSWORD": told["password"],
            # Django's SMTP backend verifies the server; this is how it comes to trust a throwaway certificate.
            "SSL_CERT_FILE": told["certificate"],
            # And what speaks to the HTTP API.
            "REQUESTS_CA_BUNDLE": told["certificate"],
            "DEMO_API_HOST": told["api_host"],
            "DEMO_WEBHOOK_PASSWORD": self._webhook_password,
        }
        self._prepare_database()
        self.site = self._start_process("site", ["-m", "demo.webserver", "--port", str(self._first_site_port)])
        self.site_port = self.site.first_line(_START_SECONDS)["port"]
        # Whose mails have links to it.
        self._environment["DEMO_SITE_URL"] = self.address
        worker = [sys.executable, "-m", *WORKER_COMMAND, "-l", "INFO"]
        # On any other signal a worker wants to take leave of Redis, which dies with this process, too: for ever.
        self.worker = self._start_process("worker", worker, on_parent_death=signal.SIGKILL)
        self.worker.wait_until(lambda: " ready." in self.worker.output(), _START_SECONDS)
        self._register_webhook()

    def _register_webhook(self) -> None:
        """Have SparkPost post its events to the site."""
        answer = requests.post(
            f"https://{self.api_host}/api/v1/webhooks",
            json={
                "name": "demo",
                "target": f"{self.address}/mailer/sparkpost/events/",
                "events": list(CLASSES),
                "auth_type": "basic",
                "auth_credentials": {"username": "sparkpost", "password": self._webhook_password},
            },
            headers={"Authorization": self._environment["DEMO_EMAIL_PASSWORD"]},
            verify=self._environment["SSL_CERT_FILE"],
            timeout=_START_SECONDS,
        )
        if answer.status_code != 200:
            raise ProcessError(f"The local SparkPost did not register the webhook: {answer.text}")

    def _prepare_database(self) -> None:
        """Make the tables and fill them, in this process, which looks into them later on."""
        os.environ.update(self._environment)
        django.setup()
        call_command("migrate", verbosity=0)
        from .events.seed import seed

        seed(self.admin_password)

    def _start_process(
        self, name: str, command: list[str], *, on_parent_death: signal.Signals = signal.SIGTERM
    ) -> Process:
        if command[0] == "-m":
            command = [sys.executable, *command]
        path = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        process = Process(
            name,
            command,
            self.directory / f"{name.replace(' ', '-')}.log",
            environment={**self._environment, "PYTHONPATH": os.pathsep.join(path)},
            directory=self.directory,
            on_parent_death=on_parent_death,
        )
        self._stack.callback(process.stop)
        return process

    def close(self) -> None:
        """End everything, last started first. A second Ctrl-C must not leave something behind."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._stack.close()
        finally:
            signal.signal(signal.SIGINT, before)
