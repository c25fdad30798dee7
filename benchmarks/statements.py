"""How many statements and commits one mail costs its worker on PostgreSQL, counted in the server's log.

What a system's processes ask without any mail, such as a
loop that looks for some, is part of it: they would not be there without the system.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from testbed.processes import ProcessError
from testbed.servers.postgresql import PostgreSQL

from .agent import AgentError
from .bench import Bench
from .report import Goal, Line
from .stage import Place
from .systems import OURS, PEERS, system

#: Alone: one claim and one record, and a row of counts about once a second. How many mails of a batch share them
#: depends on how fast they leave.
_GOALS: dict[str, dict[str, Goal | None]] = {
    "alone": {"Statements": Goal("ours", at_most=3), "Commits": Goal("ours", at_most=3)},
    "of many": {"Statements": None, "Commits": None},
}
_PROCESSES = 1
_SECONDS = 60.0
#: Nothing was logged for so long: what comes after a mail's acceptance has come.
_QUIET_SECONDS, _LONGEST_QUIET_WAIT = 1.5, 6.0

# As PostgreSQL writes it: "2026-11-28 19:00:00 UTC [4711] LOG:  execute <unnamed>: SELECT 1".
_STATEMENT = re.compile(rb"\[(\d+)\] LOG:  (?:statement|execute [^:]+):\s*([A-Za-z]+)")
_CHANGES = (b"INSERT", b"UPDATE", b"DELETE", b"COPY")


class Counted(NamedTuple):
    """What was counted."""

    #: Without those that begin and end transactions.
    statements: int
    #: Transactions that have changed something: each is waited for until it is on the disk.
    commits: int


def counted(log: bytes) -> Counted:
    """Count what stands in a log of PostgreSQL's."""
    statements = commits = 0
    #: Of each connection in a transaction, whether it has changed something.
    changed: dict[bytes, bool] = {}
    for pid, word in _STATEMENT.findall(log):
        kind = word.upper()
        if kind in (b"BEGIN", b"START"):
            changed[pid] = False
        elif kind in (b"COMMIT", b"END", b"ROLLBACK"):
            commits += changed.pop(pid, False) and kind != b"ROLLBACK"
        elif kind in (b"SAVEPOINT", b"RELEASE", b"SET"):
            continue
        else:
            statements += 1
            if kind in _CHANGES:
                if pid in changed:
                    changed[pid] = True
                else:
                    commits += 1
    return Counted(statements, commits)


def measure(bench: Bench) -> None:
    """Count for single mails, and for mails of a batch, of each system."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for key in (OURS, *PEERS):
        if key not in bench.python.systems:
            continue
        try:
            found[key] = _count(bench, bench.place("postgresql"), key)
        except (AgentError, ProcessError) as error:
            bench.report.miss(f"Statements and commits a mail, {system(key).name}: {error}")
        bench.stage.sink.settle()
    if OURS not in found:
        return
    for kind, goals in _GOALS.items():
        for index, (name, goal) in enumerate(goals.items()):
            for key in (key for key in PEERS if key in found):
                ours, other = (found[one][kind][index] for one in (OURS, key))
                line = Line("statements", f"{name} a mail, {kind}", ours, system(key).name, other, "", goal)
                bench.report.add(line)


def _count(bench: Bench, place: Place, key: str) -> dict[str, tuple[float, float]]:
    sizes, sink = bench.sizes, bench.stage.sink
    with place.agent(key) as agent:
        # Its connection is there before statements are logged.
        agent.order("connect")
        with _logged(bench.stage.postgresql, place) as log, place.workers(key, _PROCESSES) as workers:
            workers.wait()
            base = sink.settle()
            agent.order("send_many", first=1, count=10)
            agent.order("send_urgent", word="first", number=1)
            sink.wait_for(base + 11, _SECONDS)
            log.wait_until_quiet()
            found = {}
            for kind, count in (("alone", sizes.counted_singles), ("of many", sizes.counted_many)):
                base, since = sink.accepted, log.position
                if kind == "alone":
                    for number in range(count):
                        agent.order("send_urgent", word="alone", number=number)
                        sink.wait_for(base + number + 1, _SECONDS)
                else:
                    agent.order("send_many", first=1, count=count)
                    sink.wait_for(base + count, _SECONDS)
                log.wait_until_quiet()
                statements, commits = counted(log.since(since))
                found[kind] = statements / count, commits / count
    place.drop_queue(key)
    with place.agent(key) as agent:
        agent.order("clear")
    return found


class _Log:
    """The log of a server, from a position on."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def position(self) -> int:
        return self._path.stat().st_size

    def since(self, position: int) -> bytes:
        with self._path.open("rb") as log:
            log.seek(position)
            return log.read()

    def wait_until_quiet(self) -> None:
        position, since = self.position, time.monotonic()
        # Some processes always ask for something.
        deadline = since + _LONGEST_QUIET_WAIT
        while time.monotonic() - since < _QUIET_SECONDS and time.monotonic() < deadline:
            time.sleep(0.05)
            if (now := self.position) != position:
                position, since = now, time.monotonic()


@contextmanager
def _logged(server: PostgreSQL, place: Place) -> Iterator[_Log]:
    """Have all statements of connections that are opened from now on logged."""
    name = place.database_url.rpartition("/")[2]
    with closing(server.connect("postgres")) as connection:
        connection.execute(f"ALTER DATABASE {name} SET log_statement = 'all'")
        try:
            yield _Log(server.log)
        finally:
            connection.execute(f"ALTER DATABASE {name} RESET log_statement")
