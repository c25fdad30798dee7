"""The image of the how-to on deploying: its Dockerfile is run, and what it starts sends mail."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.processes import free_port
from testbed.servers.postgresql import PostgreSQL
from tests.conftest import wait_for
from tests.deploying.files import FOLDER, compose
from tests.deploying.image import CannotRun, Image
from tests.deploying.site import START, Site, arrives, wait_for_port, wait_for_worker
from tests.support.pages import ROOT

#: Of the clone, what its archive needs to be installed.
_PACKAGE = ["setup.py", "pyproject.toml", "README.md", "congressy_mailer"]


def write_context(site: Site, smtp: LocalSparkPost, folder: Path) -> dict[str, str]:
    """Put the files of the page into the project, and return the variables of its ``.env``."""
    for name in ("Dockerfile", ".dockerignore", "requirements.txt"):
        shutil.copy(FOLDER / name, site.folder)
    # As the first line of the requirements has it, as long as it is needed.
    for name in _PACKAGE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (folder / "clone" / "main").mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, folder / "clone" / "main" / name)
    archive = Path(shutil.make_archive(str(folder / "main"), "zip", folder / "clone"))
    requirements = site.folder / "requirements.txt"
    text = re.sub(r"^(congressy-mailer.*)$", rf"\1 @ {archive.as_uri()}", requirements.read_text(), flags=re.MULTILINE)
    requirements.write_text(text)
    shutil.copy(smtp.certificate.authority, site.folder / "authority.pem")
    names = [
        "SECRET_KEY", "ALLOWED_HOSTS", "DATABASE_PASSWORD", "DATABASE_PORT", "DATABASE_NAME", "DATABASE_USER",
        "SMTP_PORT", "SMTP_PASSWORD",
    ]  # fmt: skip
    variables = {**{name: site.environment[name] for name in names}, "SSL_CERT_FILE": "/srv/project/authority.pem"}
    (site.folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    return variables


class Services:
    """Those of the compose file that have the project's image."""

    def __init__(self, image: Image, site: Site, variables: dict[str, str]) -> None:
        self._image, self._site, self._variables = image, site, variables

    def command(self, name: str, words: list[str] | None = None, port: int = 0) -> list[str]:
        """What starts a service, or another command in it.

        Args:
            name: of the service.
            words: the other command.
            port: on which a web server listens.
        """
        service = compose()["services"][name]
        environment = {**self._variables, **service["environment"]}
        # The names of the services are in the image's /etc/hosts; this Redis has a port of the tests' own.
        broker = environment["CELERY_BROKER_URL"].replace(":6379", f":{self._site.redis_port}")
        words = [word.replace("0.0.0.0:8000", f"127.0.0.1:{port}") for word in words or shlex.split(service["command"])]
        return self._image.command(words, {**environment, "CELERY_BROKER_URL": broker})


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    """One that nothing is built in."""
    context = tmp_path / "context"
    context.mkdir()
    with closing(Image(tmp_path / "image", context)) as one:
        yield one


@pytest.mark.parametrize(
    ("dockerfile", "line", "reason"),
    [
        ("ENV A=1\n\n# More.\nADD file .\n", 4, "no such instruction"),
        ("FROM debian:12\n", 1, "only an image of Python's"),
        ("ENV A=1\nRUN echo why && \\\n    false\n", 2, "it ended with status 1: why"),
        ('RUN ["true"]\n', 1, "only a command for the shell"),
        ("USER nobody-here\n", 1, "there is no user nobody-here"),
        ("COPY --chmod=700 file .\n", 1, "only --chown"),
        ("COPY file other\n", 1, "only a folder"),
        ("COPY missing .\n", 1, "nothing is there"),
        ("CMD gunicorn project.wsgi\n", 1, "a shell before the program"),
    ],
)
def test_what_cannot_be_run_is_an_error_with_its_line(image: Image, dockerfile: str, line: int, reason: str) -> None:
    (image.context / "Dockerfile").write_text(dockerfile)
    with pytest.raises(CannotRun, match=rf"^Dockerfile:{line}: [^\0]*\n{re.escape(reason)}"):
        image.build()


def test_instructions_are_run_in_their_folder_with_the_environment_and_as_the_user(image: Image) -> None:
    (image.context / "file").touch()
    (image.context / "Dockerfile").write_text(
        "ENV NAME=value\nRUN useradd --create-home somebody\nWORKDIR /srv/there\nCOPY file .\n"
        "COPY --chown=somebody file own/\nWORKDIR own\nUSER somebody\nRUN echo $NAME $HOME $(id -un) >file\n"
    )
    image.build()
    there = image.written / "srv" / "there"
    assert (there / "own" / "file").read_text() == "value /home/somebody somebody\n"
    assert (there / "file").stat().st_uid == 0 != (there / "own" / "file").stat().st_uid
    assert not Path("/srv/there").exists()


def test_what_is_ignored_is_not_copied(image: Image) -> None:
    ignored = [".env", "a/b/__pycache__/c.pyc", "__pycache__/d.pyc", "venv/f", "notes.txt"]
    copied = ["a/.env", "a/notes.txt", "a/venv/e", "g"]
    for name in (*ignored, *copied):
        (image.context / name).parent.mkdir(parents=True, exist_ok=True)
        (image.context / name).touch()
    patterns = ["# Not copied.", ".env", "venv/", "**/__pycache__", "*.txt", "Docker*", ".dockerignore"]
    (image.context / ".dockerignore").write_text("\n".join(patterns))
    (image.context / "Dockerfile").write_text("WORKDIR /srv/there\nCOPY . .\n")
    image.build()
    there = image.written / "srv" / "there"
    assert sorted(str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()) == copied
    (image.context / ".dockerignore").write_text("!g\n")
    with pytest.raises(CannotRun, match=r"\.dockerignore:1: !g"):
        image.build()


def test_what_the_dockerfile_builds_sends_mail(tmp_path: Path, smtp: LocalSparkPost) -> None:
    with (
        PostgreSQL() as database,
        closing(Site(tmp_path / "site", database.port, smtp)) as site,
    ):
        variables = write_context(site, smtp, tmp_path)
        with closing(Image(tmp_path / "image", site.folder, hosts=["postgresql", "redis"])) as image:
            image.build()
            project = image.written / "srv" / "project"
            assert (project / "manage.py").exists()
            assert (project / "staticfiles" / "admin" / "css" / "base.css").exists()
            assert not (project / ".env").exists()
            services = Services(image, site, variables)
            done = site.run(*services.command("migrations"))
            assert done.returncode == 0, done.stdout + done.stderr

            port = free_port()
            assert image.cmd == shlex.split(compose()["services"]["web"]["command"])
            web = site.start(services.command("web", image.cmd, port))
            mailer = site.start(services.command("mailer"))
            worker = site.start(services.command("worker"))
            for process in (mailer, worker):
                wait_for_worker(process)
            wait_for_port(web, port)
            assert all(os.stat(f"/proc/{process.pid}").st_uid for process in (web, mailer, worker))

            before = len(smtp.mailbox)
            site.get(port, "send/")
            arrives(smtp, "Synchronous")
            assert len(smtp.mailbox) == before + 1
            assert "static/admin/css/base.css" in site.style_sheets(port)
            assert any((image.written / "var" / "lib" / "mailer").iterdir())
            [kind, *probe] = compose()["services"]["mailer"]["healthcheck"]["test"]
            assert kind == "CMD"
            wait_for(lambda: site.run(*services.command("mailer", probe)).returncode == 0, START, "the probe's success")
            for process in (mailer, worker, web):
                process.stop(START)
                assert "Traceback" not in process.output()
