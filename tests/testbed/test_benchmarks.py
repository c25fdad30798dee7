"""What the benchmarks measure with, measured itself; neither Postfix nor any of the peers is needed for it."""

from __future__ import annotations

import json
import re
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from celery.signals import worker_process_shutdown

from benchmarks import caller
from benchmarks.__main__ import measure_all
from benchmarks.agent import AgentError
from benchmarks.bench import QUICK, Bench, Measurement, Sizes
from benchmarks.budget import LEAST_SHARE, Budget, Cost
from benchmarks.link import Link, Watch
from benchmarks.report import Goal, Line, Report, alternate, medians, percentile
from benchmarks.round_trips import count
from benchmarks.stage import Place, Stage, this_python
from benchmarks.statements import counted
from benchmarks.tls_front import USER, TlsFront
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.transports.selection import transport_for
from testbed.processes import free_port
from tests.support.transports import composed, sparkpost_at


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that says what it is told, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def test_the_link_delays_and_holds_nothing_else_back(echo: int) -> None:
    sent = bytes(range(256)) * 8000
    with Link(echo, round_trip=0.2) as link, socket.create_connection(("127.0.0.1", link.port), timeout=10) as client:
        began = time.monotonic()
        client.sendall(b"1")
        assert client.recv(10) == b"1"
        # The connection costs a round trip and a half, of which the first half is on the way of what was said. A timer
        # may ring a moment early.
        assert time.monotonic() - began >= 0.49
        taken: list[float] = []
        # What others do to a machine is not in the shortest.
        while not taken or (min(taken) >= 0.3 and len(taken) < 30):
            began = time.monotonic()
            client.sendall(b"2")
            assert client.recv(10) == b"2"
            taken.append(time.monotonic() - began)
        assert 0.2 <= min(taken) < 0.3
        assert link.turns == 1 + len(taken)
        # Two megabytes take no longer: in order, and without a limit to what is on its way.
        began = time.monotonic()
        threading.Thread(target=client.sendall, args=(sent,)).start()
        came = bytearray()
        while len(came) < len(sent):
            came += client.recv(65536)
        assert 0.2 <= time.monotonic() - began < 30
        assert came == sent


def test_the_counter_of_round_trips(smtp_server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in smtp_server.environment().items():
        monkeypatch.setenv(name, value)

    def ours(number: int) -> int:
        with transport_for("sparkpost") as transport:
            return sum(bool(outcome.accepted) for outcome in transport.deliver(composed() for _ in range(number)))

    with Link(smtp_server.port) as link, sparkpost_at(smtp_server, link.port):
        assert count(link, ours) == 1
        worker_process_shutdown.send(None)

    with Link(smtp_server.port) as link, smtplib.SMTP("localhost", link.port, timeout=20) as connection:
        connection.starttls(context=ssl.create_default_context())
        connection.login(smtp_server.user, smtp_server.password)

        def theirs(number: int) -> int:
            for _ in range(number):
                connection.sendmail("mail@congressy.net", ["ana@example.com"], "Subject: x\n\nTexto\n")
            return number

        assert count(link, theirs) == 4


class _Kept:
    """What aiosmtpd gives the mails to."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.mails.append(envelope.content)
        return "250 OK"


def test_the_front_has_tls_and_a_login_and_the_watch_sees_single_mails(tmp_path: Path) -> None:
    kept, watch = _Kept(), Watch(b"urgente-")
    server = Controller(kept, hostname="127.0.0.1", port=free_port())
    server.start()
    try:
        with Link(server.port, watch=watch) as link, TlsFront(link.port, tmp_path) as front:
            with smtplib.SMTP("localhost", front.port, timeout=20) as connection:
                connection.starttls(context=front.certificate.client_context())
                with pytest.raises(smtplib.SMTPAuthenticationError):
                    connection.login(USER, "guessed")
                connection.login(USER, front.password)
                for text in ("urgente-00000007-", "outra"):
                    connection.sendmail("mail@congressy.net", ["ana@example.com"], f"Subject: x\n\n{text}\n")
            with smtplib.SMTP("localhost", front.port, timeout=20) as connection:
                assert connection.docmd("MAIL FROM:<mail@congressy.net>")[0] == 530
    finally:
        server.stop()
    assert len(kept.mails) == 2
    assert list(watch.accepted) == [7]


def test_the_agent_does_what_it_is_told(tmp_path: Path) -> None:
    place = Place(this_python(), f"sqlite://{tmp_path}/db.sqlite3", "redis://127.0.0.1:1/0", 1, tmp_path)
    with place.agent("congressy") as agent:
        for order in ("compose_ours", "compose_django"):
            milliseconds, size = agent.order(order, count=2)
            assert milliseconds > 0
            assert 5_000 < size < 10_000
        with pytest.raises(AgentError, match="no such table"):
            agent.order("send_each", first=1, count=1)
        assert agent.order("memory") > 1_000_000


def test_the_cost_of_a_call_is_measured_without_a_mail_server_and_without_the_others() -> None:
    said: list[str] = []
    report = Report(said.append)
    sizes = replace(QUICK, calls=2, recipients=20)
    with Stage() as stage:
        caller.measure_on(Bench(stage, [replace(this_python(), systems=["congressy"])], sizes, report), "sqlite")
    assert not report.not_measured
    measured = [line.what for line in report.lines]
    assert any("send_bulk(), display names beyond ASCII, SQLite" in what for what in measured)
    assert all(line.ours > 0 for line in report.lines)


LOG = b"""\
2026-11-28 19:00:00.000 UTC [12] LOG:  statement: SET search_path = public
2026-11-28 19:00:00.001 UTC [12] LOG:  execute <unnamed>:
\t        UPDATE message SET state = 'BEGIN'
\t        WHERE id = $1
2026-11-28 19:00:00.001 UTC [12] DETAIL:  parameters: $1 = '1'
2026-11-28 19:00:00.002 UTC [12] LOG:  statement: BEGIN
2026-11-28 19:00:00.002 UTC [13] LOG:  statement: BEGIN
2026-11-28 19:00:00.003 UTC [12] LOG:  execute _pg3_0: SELECT 1
2026-11-28 19:00:00.003 UTC [13] LOG:  execute _pg3_0: INSERT INTO event VALUES ($1)
2026-11-28 19:00:00.003 UTC [13] LOG:  execute _pg3_1: DELETE FROM event
2026-11-28 19:00:00.004 UTC [12] LOG:  statement: COMMIT
2026-11-28 19:00:00.004 UTC [13] LOG:  statement: COMMIT
2026-11-28 19:00:00.005 UTC [13] LOG:  statement: BEGIN
2026-11-28 19:00:00.005 UTC [13] LOG:  execute _pg3_1: DELETE FROM event
2026-11-28 19:00:00.006 UTC [13] LOG:  statement: ROLLBACK
"""


def test_statements_and_commits_are_counted_in_the_servers_log() -> None:
    assert counted(LOG) == (5, 2)


def test_the_report(tmp_path: Path) -> None:
    said: list[str] = []
    report = Report(said.append)
    order: list[str] = []

    def measure(name: str, values: list[float]) -> Any:
        return lambda: order.append(name) or values.pop()

    runs = alternate(3, {"ours": measure("ours", [9.0, 1.0, 2.0]), "peer": measure("peer", [4.0, 8.0, 1.0])})
    assert order == ["ours", "peer"] * 3
    assert medians(runs) == {"ours": 2.0, "peer": 4.0}
    assert percentile(range(1, 101), 0.95) == 95
    assert percentile([1.0], 0.95) == 1.0

    report.add(Line("way", "Mails", 30.0, "peer", 10.0, "/s", Goal("ratio", at_least=2.0)))
    report.add(Line("way", "Mails", 30.0, "peer", 20.0, "/s", Goal("ratio", at_least=2.0)))
    report.add(Line("cost", "Time", 0.25, "peer", 0.5, "ms", Goal("ours", at_most=0.2)))
    report.add(Line("wait", "Wait", 0.5, "peer", 6.0, "s", other_at_least=True))
    report.miss("the rest")
    assert [line.verdict for line in report.lines] == ["yes", "no, by 25%", "no, by 25%", ""]
    assert report.lines[0].cells() == ["Mails", "30.0 /s", "peer 10.0", "3.00", "≥ 2.00 ×", "yes"]
    assert report.lines[3].cells() == ["Wait", "0.50 s", "peer > 6.00", "< 0.08", "", ""]
    assert len(report.table().splitlines()) == 5
    assert len(said) == 5

    report.write(tmp_path / "results.json", {"cores": 2})
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["machine"] == {"cores": 2}
    assert [line["ratio"] for line in written["lines"]] == pytest.approx([3.0, 1.5, 0.5, 1 / 12])
    assert written["not_measured"] == ["the rest"]


COSTS = {"first": Cost(10, 50), "second": Cost(5, 10, 100), "third": Cost(20, 80)}


def run_of(budget: Budget, seconds: float, slowness: float) -> dict[str, float]:
    """What each gets of its sizes in a run on a machine that is so slow, where all of them end in time."""
    left, shares = seconds, {}
    for name, cost in COSTS.items():
        allotment = budget.allot(name, left)
        took = cost.seconds(allotment.share, slowness)
        assert took <= allotment.seconds <= left
        budget.conclude(name, allotment.share, took)
        left, shares[name] = left - took, allotment.share
    return shares


@pytest.mark.parametrize("wrong_by", [0.6, 1.0, 2.0])
@pytest.mark.parametrize("slowness", [0.5, 1.0, 1.6, 3.0, 5.0])
def test_a_run_ends_in_time_however_slow_the_machine_is_and_was_thought_to_be(wrong_by: float, slowness: float) -> None:
    shares = run_of(Budget(COSTS, slowness * wrong_by), 350, slowness)
    if slowness <= 1 and wrong_by <= 1:
        assert set(shares.values()) == {1.0}
    # What was not known at the beginning is known by the end.
    assert shares["third"] >= {0.5: 1, 1.0: 0.9, 1.6: 0.5, 3.0: 0.2, 5.0: 0.05}[slowness]


def test_where_not_even_the_least_fits_each_has_its_part_of_the_time() -> None:
    budget, left = Budget(COSTS, 20), 100.0
    for name in COSTS:
        allotment = budget.allot(name, left)
        assert allotment.share == LEAST_SHARE
        assert 0 < allotment.seconds <= left
        left -= allotment.seconds
        budget.conclude(name, allotment.share, allotment.seconds)
    assert left >= -0.001


def test_one_that_takes_longer_than_planned_leaves_the_others_their_least() -> None:
    budget = Budget(COSTS, 1)
    allotment = budget.allot("first", 270)
    others = sum(COSTS[name].seconds(LEAST_SHARE, 1) for name in ("second", "third"))
    assert COSTS["first"].seconds(allotment.share, 1) < allotment.seconds <= 270 - others


def test_one_that_mostly_waits_says_nothing_of_the_machine() -> None:
    budget = Budget(COSTS, 1)
    budget.conclude("second", 1.0, 3 * COSTS["second"].seconds(1, 1))
    assert budget.slowness == 1
    budget.conclude("first", 1.0, 3 * COSTS["first"].seconds(1, 1))
    assert budget.slowness == 3


def test_sizes_shrink_to_the_least_and_no_further() -> None:
    full = Sizes()
    assert full.scaled(1) == full
    assert full.scaled(0.001) == replace(QUICK, patience=full.patience, bulk=((100, 1), (1_000, 1), (1_000, 1)))
    half = full.scaled(0.5)
    assert (half.queued, half.events, half.link_mails, half.runs) == (25_000, 20_000, (20, 10), full.runs)
    assert half.bulk == ((500, 3), (5_000, 3), (50_000, 1))
    # In what people read.
    assert full.scaled(0.777).queued == 38_000


def test_a_measurement_that_fails_or_takes_too_long_says_so_and_the_others_are_made() -> None:
    said: list[str] = []
    report = Report(said.append)
    with Stage() as stage:
        bench = Bench(stage, [this_python()], QUICK, report)
        shares: list[Sizes] = []

        def succeed(bench: Bench) -> None:
            shares.append(bench.sizes)
            report.add(Line("way", "Mails", 30.0, "peer", 10.0, "/s"))

        def fail(bench: Bench) -> None:
            raise RuntimeError("no such table\nand more")

        def hang(bench: Bench) -> None:
            threading.Event().wait(600)

        plan = {
            "one": Measurement(succeed, Cost(0.1, 0.1)),
            "two": Measurement(fail, Cost(0.1, 0.1)),
            "three": Measurement(hang, Cost(0.1, 0.1)),
            "four": Measurement(succeed, Cost(0.1, 0.1)),
        }
        began = time.monotonic()
        made = measure_all(bench, plan, 1.0, Sizes(), lambda: began + 12)
    assert list(made) == list(plan)
    assert [line.what for line in report.lines] == ["Mails", "Mails"]
    assert report.not_measured[0] == "two: RuntimeError: no such table"
    assert re.fullmatch(r"three: its \d+ s were over", report.not_measured[1])
    assert shares[0] == Sizes()
