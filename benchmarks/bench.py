"""What every measurement is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from .budget import Cost
from .report import Report
from .stage import Place, Python, Stage


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    #: Runs of each that take turns.
    runs: int = 3
    #: Mails on one connection over the 40 ms and the 120 ms: of ours and of the limits, and of the slower ones.
    link_mails: tuple[int, int] = (40, 20)
    link_mails_of_peers: tuple[int, int] = (8, 3)
    #: Over a long way: mails of a batch and by single calls, on each bare socket, and of each peer's worker; and runs
    #: of ours and of the sockets.
    far_batch: int = 400
    far_singles: int = 200
    far_mails_of_socket: int = 30
    far_mails_of_peers: int = 40
    far_runs: int = 1
    #: Over HTTP: mails of a batch, and of the peer, which makes a call for each.
    http_mails: int = 10_000
    http_mails_of_peer: int = 60
    #: Runs of the whole way; most mails of one run, which makes 10,000 in all; and how many seconds a run is to take at
    #: the most, for which slower ones are given fewer mails.
    way_runs: int = 3
    way_mails: int = 3400
    way_seconds: float = 2.0
    compositions: int = 200
    #: Single calls of one run, and recipients of one call.
    calls: int = 150
    recipients: int = 4_000
    #: Recipients, and runs with them; with the first and the last number, memory is compared as well.
    bulk: tuple[tuple[int, int], ...] = ((1_000, 3), (10_000, 3), (100_000, 1))
    #: Mails that a worker's memory is compared after.
    memory_of_worker: tuple[int, int] = (1_000, 4_000)
    #: Events of SparkPost, before a fifth of them is repeated; and posts of 1,000 to the webhook.
    events: int = 40_000
    posts: int = 20
    #: Single mails, and mails of one call, whose statements are counted.
    counted_singles: int = 20
    counted_many: int = 1_000
    #: Single mails while nothing else is sent.
    idle_mails: int = 30
    #: Single mails while bulk mail is queued, and how much of it.
    urgent_mails: int = 20
    queued: int = 50_000
    #: What is queued with the peers, which is enough to keep them at work for as long as is waited.
    queued_with_peers: int = 12_000
    #: Longest time that a single mail is waited for behind bulk mail.
    patience: float = 5.0

    def scaled(self, share: float) -> Sizes:
        """The same with a share of everything, and never with less than :data:`QUICK`.

        Runs become fewer only where little is left: without several nobody sees how much they differ.

        Args:
            share: at most 1.
        """
        if share >= 1:
            return self
        least = asdict(QUICK)
        return Sizes(**{name: _scaled(name, full, least[name], share) for name, full in asdict(self).items()})


def _scaled(name: str, full: Any, least: Any, share: float) -> Any:
    if name == "patience":
        return full
    if isinstance(full, tuple):
        # Where there are fewer of QUICK's, its last one is the least of what follows.
        least_ones = [*least, *[least[-1]] * (len(full) - len(least))]
        return tuple(_scaled(name, one, least_one, share) for one, least_one in zip(full, least_ones, strict=True))
    if name.endswith("runs") or (name == "bulk" and full < _FEW):
        return full if share > _SHARE_FOR_ALL_RUNS else least
    if isinstance(full, float):
        return max(least, full * share)
    return max(least, _round_down(int(full * share)))


def _round_down(count: int) -> int:
    """Some of these numbers stand in what people read: two digits are enough of a large one."""
    unit = 10 ** max(len(str(count)) - 2, 0)
    return count // unit * unit


#: Less of the sizes, and each is measured once.
_SHARE_FOR_ALL_RUNS = 0.3
#: Runs are fewer than that, and recipients more.
_FEW = 50


QUICK = Sizes(
    runs=1,
    link_mails=(10, 6),
    link_mails_of_peers=(3, 2),
    far_batch=20,
    far_singles=20,
    far_mails_of_socket=4,
    far_mails_of_peers=6,
    far_runs=1,
    http_mails=100,
    http_mails_of_peer=4,
    way_runs=1,
    way_mails=100,
    way_seconds=0.5,
    compositions=20,
    calls=20,
    recipients=200,
    bulk=((100, 1), (1_000, 1)),
    memory_of_worker=(100, 500),
    events=2_000,
    posts=3,
    counted_singles=2,
    counted_many=50,
    idle_mails=3,
    urgent_mails=4,
    queued=1_000,
    queued_with_peers=500,
    patience=3.0,
)


@dataclass
class Bench:
    """A run: its servers, its environments, its sizes and its report."""

    stage: Stage
    #: The environments, of the oldest Django first.
    pythons: list[Python]
    sizes: Sizes
    report: Report

    @property
    def python(self) -> Python:
        """The environment of what is measured in one only."""
        return self.pythons[0]

    def place(self, vendor: str, python: Python | None = None) -> Place:
        """Where a system runs; see :meth:`.stage.Stage.place`."""
        return self.stage.place(python or self.python, vendor)


@dataclass(frozen=True)
class Measurement:
    """One of the measurements."""

    measure: Callable[[Bench], None]
    cost: Cost
