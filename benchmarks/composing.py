"""What building a mail's MIME form costs once its text and HTML are there, and what queueing one of Django's: 7 kB."""

from __future__ import annotations

from .bench import Bench
from .report import Goal, Line, alternate, medians


def measure(bench: Bench) -> None:
    """Measure ours and Django's, with all versions of Django."""
    for python in bench.pythons:
        count = bench.sizes.compositions
        with bench.place("sqlite", python).agent("congressy") as agent:
            agent.order("compose_ours", count=10), agent.order("compose_django", count=10)
            agent.order("queue_django", count=10)
            sizes: dict[str, float] = {}

            def one(order: str) -> float:
                taken, sizes[order] = agent.order(order, count=count)  # noqa: B023
                return float(taken)

            runs = alternate(
                bench.sizes.runs * 3,
                {
                    "ours": lambda: one("compose_ours"),
                    "django": lambda: one("compose_django"),
                    "queue": lambda: float(agent.order("queue_django", count=count * 5)),  # noqa: B023
                },
            )
        found = medians(runs)
        queued, composed = {"queue": runs.pop("queue")}, {"django": runs["django"]}
        what = f"Composing a mail of {sizes['compose_ours'] / 1000:.1f} kB, {python.django}"
        goal = Goal("ours", at_most=0.2)
        bench.report.add(
            Line("composing", what, found["ours"], "Django's as_bytes()", found["django"], "ms", goal, runs=runs)
        )
        what = f"Queueing each of {count * 5:,} mails in one send_messages(), {python.django}"
        line = Line(
            "composing", what, found["queue"], "Django's as_bytes()", found["django"], "ms",
            Goal("ratio", at_most=2), runs=queued | composed,
        )  # fmt: skip
        bench.report.add(line)
