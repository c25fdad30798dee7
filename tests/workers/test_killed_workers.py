"""A worker that is killed repeats no mail of which it had read that the server has taken it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection, connections

from congressy_mailer import send_bulk
from congressy_mailer.models import Message, State
from congressy_mailer.testing.local_sparkpost.replies import Action, Answer, Exchange, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.processes import Process, child_processes
from tests.conftest import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

StartWorker = Callable[..., Process]

#: Of each batch. The last kills come in the midst of it.
MAILS = 200
#: A process is killed when so many mails were taken since the last time.
EVERY = 47

QUICK = {"MAILER_TEST_LEASE_SECONDS": "20", "MAILER_TEST_SWEEP_INTERVAL_SECONDS": "0.5"}


def options(**more: Any) -> dict[str, str]:
    """For a worker with one connection: on a busy machine, where each answer takes long, it would open further ones."""
    return {**QUICK, "MAILER_TEST_OPTIONS": json.dumps({"MAX_CONNECTIONS": 1, **more})}


def recorded() -> int | None:
    """How many mails the outbox knows to be sent; nothing where a process was stopped in a commit. In a thread."""
    try:
        if connection.vendor == "sqlite":
            # A stopped process lets go of the file's lock only when it goes on.
            with connection.cursor() as cursor:
                cursor.execute("PRAGMA busy_timeout = 200")
        return Message.objects.filter(state=State.SENT).count()
    except OperationalError:
        return None
    finally:
        connections.close_all()


class Killer:
    """Kills in the moment in which a content comes: whoever sends it has read all that was said on that connection.

    Not where all of that has just been recorded: the journal, or its absence, would make no difference. (All is
    recorded before the next content leaves where a crash leaves it to a person, and over a long way.)
    """

    def __init__(
        self,
        server: LocalSparkPost,
        processes: Callable[[], list[int]],
        times: int,
        *,
        all_recorded: bool = False,
    ) -> None:
        """Prepare.

        Args:
            server: of which a script this is.
            processes: that send, at the moment.
            times: how often they are killed.
            all_recorded: kill also where all that was taken is recorded.
        """
        self._server = server
        self._processes = processes
        self._times = times
        self._all_recorded = all_recorded
        self._last = 0
        self.kills = 0

    async def __call__(self, exchange: Exchange) -> Answer:
        taken = len(self._server.mailbox)
        if exchange.stage is not Stage.CONTENT or self.kills == self._times or taken - self._last < EVERY:
            return None
        processes = self._processes()
        # They must not record anything between the look and the kill.
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        if not processes or not (self._all_recorded or await self._unrecorded(taken)):
            for process in processes:
                os.kill(process, signal.SIGCONT)
            return None
        for process in processes:
            os.kill(process, signal.SIGKILL)
        self._last = len(self._server.mailbox)
        self.kills += 1
        # Nobody has this one.
        return Action.HANG_UP

    @staticmethod
    async def _unrecorded(taken: int) -> bool:
        known = await asyncio.to_thread(recorded)
        return known is not None and known < taken


def store() -> None:
    send_bulk((f"ana{number}@example.com" for number in range(MAILS)), subject="Olá", message="x")


def wait_until_sent() -> None:
    wait_for(
        lambda: Message.objects.filter(state=State.SENT).count() == MAILS,
        180,
        f"the end of all mails (now: {Counter(Message.objects.values_list('state', 'reason'))})",
    )


def repeated(server: LocalSparkPost) -> list[Any]:
    """Mails with two copies: the first one's number on its connection, and how many came over that."""
    on_connection: dict[int, list[str]] = {}
    copies: Counter[str] = Counter()
    for mail in server.mailbox:
        copies[mail.message_id] += 1
        on_connection.setdefault(mail.connection, []).append(mail.message_id)
    return [
        (message_id, mails.index(message_id) + 1, len(mails))
        for message_id, count in copies.items()
        if count > 1
        for mails in [next(mails for mails in on_connection.values() if message_id in mails)]
    ]


@pytest.mark.database
def test_a_killed_pool_process_repeats_nothing_that_was_answered(
    start_worker: StartWorker, smtp_server: LocalSparkPost
) -> None:
    worker = start_worker("-c", "1", **options())
    killer = Killer(smtp_server, lambda: child_processes(worker.pid), 2)
    smtp_server.script = killer
    store()
    wait_until_sent()
    assert killer.kills == 2
    assert repeated(smtp_server) == []
    assert len(smtp_server.mailbox) == MAILS
    assert "as its journal says" in worker.output()


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_killed_worker_of_another_pool_repeats_nothing_that_was_answered(
    pool: str, start_worker: StartWorker, smtp_server: LocalSparkPost
) -> None:
    workers = [start_worker("-P", pool, "-c", "1", **options())]

    killer = smtp_server.script = Killer(smtp_server, lambda: [workers[0].pid], 1)
    store()
    wait_for(lambda: killer.kills == 1, 60, "the kill")
    workers[0].kill()
    workers.append(start_worker("-P", pool, "-c", "1", **options()))
    wait_until_sent()
    assert repeated(smtp_server) == []
    assert "as its journal says" in workers[-1].output()


def test_over_several_connections_no_more_than_one_mail_of_each_is_repeated(
    start_worker: StartWorker, smtp_server: LocalSparkPost
) -> None:
    worker = start_worker("-c", "1", **QUICK)
    killer = Killer(smtp_server, lambda: child_processes(worker.pid), 2, all_recorded=True)

    async def take_long(exchange: Exchange) -> Answer:
        if exchange.stage is Stage.CONTENT:
            # As over a long way: other connections pay.
            await asyncio.sleep(0.06)
        return await killer(exchange)

    smtp_server.script = take_long
    store()
    wait_until_sent()
    assert killer.kills == 2
    found = repeated(smtp_server)
    # Each was the last of its connection, and nobody had read that it was taken.
    assert [mail for mail in found if mail[1] < mail[2]] == []
    assert len(found) == len(smtp_server.mailbox) - MAILS <= 2 * 9
    assert len({mail.connection for mail in list(smtp_server.mailbox)[:EVERY]}) > 2


def test_where_a_crash_leaves_it_to_a_person_that_is_one_mail_and_what_was_answered_is_sent(
    start_worker: StartWorker, smtp_server: LocalSparkPost
) -> None:
    worker = start_worker("-c", "1", **options(ON_CRASH="hold"))
    killer = Killer(smtp_server, lambda: child_processes(worker.pid), 2, all_recorded=True)
    smtp_server.script = killer
    store()
    wait_for(
        lambda: Message.objects.filter(state__in=[State.SENT, State.HELD]).count() == MAILS,
        180,
        f"the end of all mails (now: {Counter(Message.objects.values_list('state', 'reason'))})",
    )
    # The one whose content had left, and not the one whose envelope went along with it.
    assert Message.objects.filter(state=State.HELD).count() == killer.kills == 2
    assert repeated(smtp_server) == []
    assert len(smtp_server.mailbox) == MAILS - 2


def test_without_a_journal_what_was_sent_in_the_last_moment_is_sent_again(
    start_worker: StartWorker, smtp_server: LocalSparkPost
) -> None:
    worker = start_worker("-c", "1", **options(JOURNAL_DIRECTORY=None))
    killer = Killer(smtp_server, lambda: child_processes(worker.pid), 3)
    smtp_server.script = killer
    store()
    wait_until_sent()
    assert killer.kills == 3
    assert repeated(smtp_server) != []
