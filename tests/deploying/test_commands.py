"""The commands of the how-to on deploying, started as they stand there, in a project that sends mail."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.processes import free_port
from testbed.servers.postgresql import PostgreSQL
from tests.conftest import wait_for
from tests.deploying.files import FOLDER, container, procfile, started_by
from tests.deploying.site import START, Site, arrives, here, wait_for_port, wait_for_worker
from tests.support.pages import ROOT, blocks


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, smtp: LocalSparkPost) -> Iterator[Site]:
    with PostgreSQL() as database, closing(Site(tmp_path_factory.mktemp("site"), database.port, smtp)) as one:
        for setting in ("ExecStartPre", "ExecStart"):
            done = one.run(*here(started_by("release.service", setting)))
            assert done.returncode == 0, done.stderr
        yield one


def test_the_admin_has_its_style_sheets(site: Site) -> None:
    port = free_port()
    web = site.start(here(started_by("web.service"), port))
    wait_for_port(web, port)
    assert "static/admin/css/base.css" in site.style_sheets(port)
    assert "{" in site.get(port, "static/congressy_mailer/admin.css")
    web.stop()


def test_units_send_mail_and_the_probe_says_so(site: Site, smtp: LocalSparkPost) -> None:
    probe = container("mailer")["readinessProbe"]["exec"]["command"]
    assert site.run(*probe).returncode == 1
    port = free_port()
    web = site.start(here(started_by("web.service"), port))
    worker = site.start(here(started_by("mailer.service")))
    wait_for_worker(worker)
    wait_for_port(web, port)
    before = len(smtp.mailbox)
    site.get(port, "send/")
    arrives(smtp, "Synchronous")
    assert len(smtp.mailbox) == before + 1
    wait_for(lambda: site.run(*probe).returncode == 0, START, "the probe's success")
    assert any((site.folder / "journal").iterdir())
    # As KillMode=mixed has it: SIGTERM for the worker alone.
    worker.stop(START)
    assert "Traceback" not in worker.output()
    web.stop()


def test_a_procfile_starts_everything(site: Site, smtp: LocalSparkPost) -> None:
    copy = site.folder / "Procfile"
    copy.write_text((FOLDER / "Procfile").read_text().replace("0.0.0.0:", "127.0.0.1:"))
    honcho = str(Path(sys.executable).with_name("honcho"))
    done = site.run(honcho, "start", "--no-colour", "release")
    assert "No migrations to apply" in done.stdout, done.stdout
    port = free_port()
    names = [name for name in procfile() if name != "release"]
    everything = site.start([honcho, "start", "--no-prefix", "--port", str(port), *names])
    wait_for_worker(everything, 2)
    wait_for_port(everything, port)
    before = [mail for mail in smtp.mailbox if mail.message["Subject"] == "Synchronous"]
    site.get(port, "send/")
    arrives(smtp, "Synchronous", len(before) + 1)

    # An ASGI server beside them, by the command of the page.
    commands = [one for block in blocks(ROOT / "docs" / "how-to" / "deploying.md") for one in block.commands]
    [command] = [one for one in commands if one.startswith("uvicorn ")]
    program, *arguments = shlex.split(command)
    asgi_port = free_port()
    asgi = site.start([*here([program, *arguments]), "--port", str(asgi_port)])
    wait_for_port(asgi, asgi_port)
    site.get(asgi_port, "asend/")
    arrives(smtp, "Asynchronous")
    assert "{" in site.get(asgi_port, "static/admin/css/base.css")
    asgi.stop()
    everything.stop(START)
