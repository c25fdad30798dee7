"""What a newcomer does with the README or the quickstart, word for word, in a project that Django has just made."""

from __future__ import annotations

import email
import email.policy
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from congressy_mailer.testing.local_sparkpost.certificate import Certificate
from congressy_mailer.testing.local_sparkpost.whole import WholeSparkPost
from testbed.processes import Process
from testbed.redis_server import EmbeddedRedis
from tests.conftest import wait_for
from tests.support.pages import ROOT, Block, blocks

# The project has settings of its own, whatever those of the tests are.
pytestmark = pytest.mark.email_settings

#: Each page, and the heading with which its way to the first mail ends.
PAGES = {
    "README.md": "## What it promises",
    "README.pt-BR.md": "## O que ele promete",
    "docs/quickstart.md": "",
    "docs/quickstart.pt-BR.md": "",
}
#: Commands that cannot be run here, and why.
NOT_RUN = {
    "make demo": "a command of its own in CI",
    "make test": "this is a part of it",
    "pip install ./congressy-mailer": "it is installed already; its dependencies would come from the network",
    "python manage.py mailer sparkpost webhook create": "SparkPost would post to the site, which is not deployed",
}
#: The environment of the tests, of which a newcomer has nothing.
_OURS = ("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "BROKER_URL", "MAILER_TEST_DIRECTORY", "MAILER_TEST_MAILERS")


class Newcomer:
    """Does what a page says, in the order in which it says so."""

    def __init__(self, folder: Path, redis: EmbeddedRedis, sparkpost: WholeSparkPost) -> None:
        """Begin in an empty folder, with a Redis and an account at SparkPost."""
        self._folder = folder
        self._worker: Process | None = None
        self._worker_command = ""
        #: What is typed into the shell.
        self._typed: list[str] = []
        self._sparkpost = sparkpost
        self._account = {
            "redis://localhost:6379/0": redis.url,
            "smtp.sparkpostmail.com": sparkpost.smtp.host,
            "587": str(sparkpost.smtp.port),
            "<SparkPost API key>": sparkpost.account.key,
            "<chave de API da SparkPost>": sparkpost.account.key,
        }
        path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in _OURS},
            **sparkpost.environment(),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join(path),
        }

    def do(self, block: Block) -> None:
        """Write it to its file, run its commands, or remember what is to be typed into the shell."""
        if block.language == "console":
            for command in block.commands:
                self.run(command)
        elif block.file:
            self._write(block)
        else:
            assert block.language == "python", block.place
            self._typed.append(block.text)

    def run(self, command: str, text: str = "") -> str:
        """Run a command, and return what it has printed."""
        if command in NOT_RUN:
            return ""
        if command.startswith("cd "):
            self._folder /= command.removeprefix("cd ")
            return ""
        if command.startswith("celery "):
            self._worker_command = command
            self.start_worker()
            return ""
        done = subprocess.run(
            ["/bin/sh", "-c", command], cwd=self._folder, env=self._environment, input=text, capture_output=True,
            text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start_worker(self) -> None:
        """As the page says; a worker that runs already is stopped before."""
        self.stop()
        unset = [word for name in _OURS for word in ("-u", name)]
        self._worker = worker = Process(
            "Celery worker",
            ["env", *unset, "sh", "-c", f"exec {self._worker_command}"],
            self._folder / "worker.log",
            environment=self._environment,
            directory=self._folder,
        )
        worker.wait_until(lambda: " ready." in worker.output(), 60)

    def stop(self) -> None:
        """Stop the worker, if there is one."""
        if self._worker:
            self._worker.stop()

    def worker_output(self) -> str:
        """What the worker has written since it was started."""
        assert self._worker, "the page starts no worker"
        return self._worker.output()

    def type_into_shell(self) -> str:
        """Everything that the page has for the shell."""
        return self.run("python manage.py shell", "\n".join(self._typed))

    def subject(self) -> str:
        """What the mail's subject is, by the page's template."""
        [template] = self._folder.rglob("*_subject.txt")
        return template.read_text().splitlines()[-1]

    def _write(self, block: Block) -> None:
        if not block.is_for_this_django:
            return
        text = block.text
        if block.file.endswith("settings.py"):
            for theirs, ours in self._account.items():
                text = re.sub(rf"(?<!\w){re.escape(theirs)}(?!\w)", ours, text)
            if "SPARKPOST_API_KEY" in text:
                text += f'CONGRESSY_MAILER["SPARKPOST_API_HOST"] = "{self._sparkpost.api.address}"\n'
        path = self._folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        before = f"{path.read_text()}\n\n" if path.exists() else ""
        path.write_text(before + text)


@pytest.fixture
def sparkpost(certificate: Certificate) -> Iterator[WholeSparkPost]:
    with WholeSparkPost(certificate=certificate) as server:
        yield server


@pytest.fixture
def newcomer(tmp_path: Path, redis_server: EmbeddedRedis, sparkpost: WholeSparkPost) -> Iterator[Newcomer]:
    one = Newcomer(tmp_path, redis_server, sparkpost)
    yield one
    one.stop()


def printed_subjects(output: str) -> list[str]:
    """Subjects of the mails that a worker has printed."""
    # The first line of what is printed stands behind the worker's own prefix.
    heads = re.findall(r"(?:^|\] )(Subject: .*(?:\n[ \t].*)*)", output, re.MULTILINE)
    return [email.message_from_string(head, policy=email.policy.default)["Subject"] for head in heads]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_leads_from_an_empty_folder_to_a_mail_printed_and_then_to_one_received(
    newcomer: Newcomer, sparkpost: WholeSparkPost, page: str
) -> None:
    steps = list(blocks(ROOT / page, PAGES[page]))
    last_typed = max(number for number, block in enumerate(steps) if block.language == "python" and not block.file)
    for block in steps[: last_typed + 1]:
        newcomer.do(block)
    newcomer.type_into_shell()
    subject = newcomer.subject()
    wait_for(lambda: subject in printed_subjects(newcomer.worker_output()), 60, f"printing the mail {subject!r}")

    for block in steps[last_typed + 1 :]:
        newcomer.do(block)
    newcomer.start_worker()
    newcomer.type_into_shell()
    [mail] = sparkpost.mailbox.wait_for(1, 60)
    assert mail.message["Subject"] == subject
    assert mail.recipients == ("ana@example.com",)
