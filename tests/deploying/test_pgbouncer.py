"""A project behind a PgBouncer that pools by transaction, with the setting that the how-to on deploying names."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path

from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.servers.pgbouncer import POOL_SIZE, PgBouncer
from testbed.servers.postgresql import PostgreSQL
from tests.conftest import wait_for
from tests.deploying.files import container, started_by
from tests.deploying.site import START, Site, here, wait_for_worker
from tests.support.pages import ROOT, blocks

_BULK = 300
_SINGLE = 40
#: A project's calls, from several threads with a connection each.
_CALLS = f"""
from concurrent.futures import ThreadPoolExecutor
from congressy_mailer import send_bulk, send_mail
from congressy_mailer.suppressions import suppress
send_bulk([f"bulk-{{number}}@example.com" for number in range({_BULK})], subject="Bulk", message="Hello.")
with ThreadPoolExecutor(4) as threads:
    numbers = range({_SINGLE})
    list(threads.map(lambda number: send_mail("One", "Hello.", to=f"one-{{number}}@example.com"), numbers))
for number in range(20):
    suppress(f"gone-{{number}}@example.com")
"""


def test_nothing_of_a_project_needs_a_connection_for_longer_than_a_transaction(
    tmp_path: Path, smtp: LocalSparkPost
) -> None:
    [setting] = [
        block.text for block in blocks(ROOT / "docs" / "how-to" / "deploying.md")
        if block.text.startswith('DATABASES["default"]')
    ]  # fmt: skip
    before = len(smtp.mailbox)
    with (
        PostgreSQL() as database,
        PgBouncer(database) as pooler,
        closing(Site(tmp_path / "site", pooler.port, smtp, settings=setting)) as site,
        closing(database.connect()) as observer,
    ):
        done = site.run(*container("migrations")["command"])
        assert done.returncode == 0, done.stderr
        worker = site.start(here(started_by("mailer.service")))
        wait_for_worker(worker)
        done = site.run("python", "manage.py", "shell", "-c", _CALLS)
        assert done.returncode == 0, done.stderr
        wait_for(lambda: len(smtp.mailbox) >= before + _BULK + _SINGLE, START, "the arrival of each mail")
        wait_for(lambda: site.run(*container("mailer")["readinessProbe"]["exec"]["command"]).returncode == 0, START)
        listed = site.run("python", "manage.py", "mailer", "suppressions", "list")
        assert "gone-19@example.com" in listed.stdout, listed.stderr
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'mailer' AND pid <> pg_backend_pid()"
        assert 0 < observer.execute(others).fetchone()[0] <= POOL_SIZE
        worker.stop(START)
        assert "Traceback" not in worker.output()
    arrived = Counter(recipient for mail in list(smtp.mailbox)[before:] for recipient in mail.recipients)
    assert len(arrived) == _BULK + _SINGLE
    assert set(arrived.values()) == {1}
