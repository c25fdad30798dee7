"""How long one mail takes from the call to the server's acceptance, alone and behind bulk mail."""

from __future__ import annotations

import time
from contextlib import ExitStack
from statistics import median

from testbed.processes import ProcessError

from .agent import Agent, AgentError
from .bench import Bench
from .link import Link, Watch
from .report import Goal, Line, percentile
from .stage import Place
from .systems import ALL, OURS, PEERS, system

_PROCESSES = 2
_WORD = "urgente"
_PAUSE_IDLE = 0.05
_PAUSE_LOADED = 0.2


class _LatencyProbe:
    """Sends single mails, and waits for them."""

    def __init__(self, watch: Watch, agent: Agent) -> None:
        self._watch = watch
        self._agent = agent
        self._last = 0

    def seconds(self, count: int, pause: float, patience: float, *, one_by_one: bool) -> list[float]:
        """From the call to acceptance, for each mail; ``inf`` for one that has not come in time.

        Args:
            count: how many mails.
            pause: seconds between two of them.
            patience: seconds after the last call.
            one_by_one: wait for each before the next.
        """
        began: dict[int, float] = {}
        for _ in range(count):
            self._last += 1
            began[self._last] = self._agent.order("send_urgent", word=_WORD, number=self._last)[0]
            if one_by_one:
                self._wait({self._last}, patience)
            time.sleep(pause)
        self._wait(set(began), patience)
        accepted = self._watch.accepted
        return [accepted.get(number, float("inf")) - at for number, at in began.items()]

    def _wait(self, numbers: set[int], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not numbers <= self._watch.accepted.keys() and time.monotonic() < deadline:
            time.sleep(0.002)


def measure(bench: Bench) -> None:
    """Measure each system by itself: what is queued for one keeps the processors from the others."""
    idle: dict[str, float] = {}
    loaded: dict[str, float] = {}
    for key in ALL:
        watch = Watch(f"{_WORD}-".encode())
        try:
            with ExitStack() as stack:
                link = stack.enter_context(Link(bench.stage.sink.port, watch=watch))
                place = bench.place("postgresql").towards(link.port)
                agent = stack.enter_context(place.agent(key))
                probe = _LatencyProbe(watch, agent)
                idle[key], loaded[key] = _latencies(bench, place, key, agent, probe)
        except (AgentError, ProcessError) as error:
            bench.report.miss(f"From the call to acceptance of one mail, {system(key).name}: {error}")
        bench.stage.sink.settle()
    if OURS in idle:
        _report(bench, idle, loaded)


def _report(bench: Bench, idle: dict[str, float], loaded: dict[str, float]) -> None:
    peers = [key for key in PEERS if key in idle]
    for key in peers:
        what, name = "One mail, nothing else queued, median", system(key).name
        bench.report.add(Line("latency", what, idle[OURS] * 1000, name, idle[key] * 1000, "ms"))
    what = f"One mail behind {bench.sizes.queued:,} queued, 95th percentile"
    goal: Goal | None = Goal("ours", at_most=1.5)
    for key in peers:
        # For as long as was waited, where it has not come.
        ours, other = (min(loaded[one], bench.sizes.patience) for one in (OURS, key))
        late, other_late = (loaded[one] == float("inf") for one in (OURS, key))
        line = Line(
            "latency", what, ours, system(key).name, other, "s", goal, ours_at_least=late, other_at_least=other_late
        )
        bench.report.add(line)
        goal = None


def _latencies(bench: Bench, place: Place, key: str, agent: Agent, probe: _LatencyProbe) -> tuple[float, float]:
    sizes = bench.sizes
    with place.workers(key, _PROCESSES) as workers:
        workers.wait()
        probe.seconds(3, _PAUSE_IDLE, sizes.patience, one_by_one=True)
        idle = median(probe.seconds(sizes.idle_mails, _PAUSE_IDLE, sizes.patience, one_by_one=True))
        queued = sizes.queued if key == OURS else sizes.queued_with_peers
        agent.order("fill", count=queued, seconds=120)
        loaded = probe.seconds(sizes.urgent_mails, _PAUSE_LOADED, sizes.patience, one_by_one=False)
    # What is left is not waited for.
    place.drop_queue(key)
    agent.order("clear")
    return idle, percentile(loaded, 0.95)
