"""What the dashboard shows, put into words and charts; the number of its queries does not grow with the outbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import metrics, outbox, periodic
from ..conf import mailer_settings
from ..metrics import counters
from ..models import TransportStatus, Worker, clock
from ..transports.destinations import destinations
from . import charts, figures
from .brokers import ask_broker
from .formats import age, ago, counted, format_count, format_moment, format_seconds, format_share
from .queues import waiting_mail

_REASONS = {
    "throttled": gettext_lazy("The server asks to send more slowly"),
    "mailbox": gettext_lazy("Mailbox full or not available"),
    "system": gettext_lazy("The server has a problem of its own"),
    "network": gettext_lazy("Network between mail servers"),
    "policy": gettext_lazy("Security or policy of the server, such as greylisting"),
    "connection": gettext_lazy("The connection was lost, or no answer came"),
    "content": gettext_lazy("A worker cannot compose it yet"),
    "in_doubt": gettext_lazy("The server may have taken it"),
    "other": gettext_lazy("Another reason"),
}

_SPANS = {"hour": gettext_lazy("Last hour"), "day": gettext_lazy("Last day"), "week": gettext_lazy("Last week")}

_MISSED_SWEEPS = 4


@dataclass(frozen=True, slots=True)
class Tile:
    """One number at the top."""

    label: str
    value: str
    #: What is to be known beside it.
    note: str = ""
    #: Something is wrong.
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart, and the same as a table."""

    #: Its id in the page.
    id: str
    title: str
    svg: SafeString
    #: Value at the top of its scale.
    top: str
    first: str
    last: str
    #: Labels, and the class that has the colour of each.
    legend: list[tuple[str, str]]
    head: list[str]
    rows: list[list[str]]


def page(span_key: str) -> dict[str, Any]:
    """The context of the page.

    Args:
        span_key: of :data:`.figures.SPANS`; anything else: the last hour.
    """
    span = figures.SPANS.get(span_key, figures.SPANS["hour"])
    week = figures.week()
    columns = figures.columns(span, week)
    workers = metrics.known_workers()
    return {
        "spans": [(key, label, key == span.key) for key, label in _SPANS.items()],
        "tiles": _tiles(),
        "charts": [_outcomes(columns, span), _times(columns, span)],
        "deferrals": _deferrals(columns),
        "rates": _rates(figures.rates(week)),
        "rate_days": figures.RATE_DAYS,
        "waiting": [_waiting_row(one) for one in waiting_mail()],
        "pauses": list(outbox.list_pauses()[:10]),
        "backends": _backends(),
        "workers": _workers(workers),
        "unserved": _unserved(workers),
        "broker": ask_broker(),
        "now": format_moment(clock.now()),
    }


def _tiles() -> list[Tile]:
    last_sweep = periodic.last_run(periodic.SWEEP)
    late = last_sweep is None or clock.now() - last_sweep > mailer_settings().SWEEP_INTERVAL * _MISSED_SWEEPS
    waiting, deferred, held = outbox.waiting_messages(), outbox.deferred_messages(), outbox.count_held()
    slow = waiting.oldest is not None and clock.now() - waiting.oldest > mailer_settings().LONGEST_WAIT
    overdue = outbox.count_overdue(mailer_settings().SWEEP_INTERVAL * _MISSED_SWEEPS)
    return [
        Tile(
            _("Last sweep"),
            ago(last_sweep) if last_sweep else _("never"),
            _("No worker takes the mailer's tasks: start one, and see whether it reaches the broker.") if late else "",
            late,
        ),
        Tile(
            _("Waiting"),
            counted(waiting.count),
            _("the oldest for %(time)s") % {"time": age(waiting.oldest)} if waiting.oldest else _("nothing waits"),
            slow,
        ),
        Tile(
            _("Deferred"),
            counted(deferred.count),
            _("the next try at %(time)s") % {"time": format_moment(deferred.next_try)} if deferred.next_try else "",
        ),
        Tile(_("Held"), counted(held), _("They wait for a person to decide.") if held else "", bool(held)),
        Tile(
            _("Overdue"),
            format_count(overdue),
            _("No worker has looked at them although they are due.") if overdue else "",
            bool(overdue),
        ),
    ]


def _outcomes(columns: Sequence[figures.Column], span: figures.Span) -> Chart:
    def values(name: str) -> list[float | None]:
        return [column.counts[name] for column in columns]

    series = [
        charts.Series(_("accepted"), "accepted", values(counters.ACCEPTED)),
        charts.Series(_("deferred"), "deferred", [column.deferred for column in columns]),
        charts.Series(_("failed"), "failed", values(counters.FAILED)),
        charts.Series(_("suppressed"), "suppressed", values(counters.SUPPRESSED)),
        charts.Series(_("held"), "held", values(counters.HELD)),
        charts.Series(_("expired"), "expired", values(counters.EXPIRED)),
    ]
    totals = [sum(int(value or 0) for value in one.values) for one in series]
    told = ", ".join(f"{one.label} {format_count(total)}" for one, total in zip(series, totals, strict=True))
    titles = {"hour": _("Mails per minute"), "day": _("Mails per hour"), "week": _("Mails per six hours")}
    return _chart(
        "outcomes", titles[span.key], columns, span, series, charts.stacked_bars(series, f"{titles[span.key]}: {told}"),
        top=charts.top_of(series, stacked=True), show=lambda value: format_count(int(value or 0)),
    )  # fmt: skip


def _times(columns: Sequence[figures.Column], span: figures.Span) -> Chart:
    series = [
        charts.Series(_("half of them (p50)"), "p50", [column.percentile(0.5) for column in columns]),
        charts.Series(_("nearly all (p95)"), "p95", [column.percentile(0.95) for column in columns]),
    ]
    title = _("Time from the call to acceptance")
    whole = sum((column.counts for column in columns), start=columns[0].counts.__class__())
    halves = format_seconds(figures.percentile(whole, 0.5)), format_seconds(figures.percentile(whole, 0.95))
    return _chart(
        "times", title, columns, span, series, charts.lines(series, f"{title}: p50 {halves[0]}, p95 {halves[1]}"),
        top=charts.top_of(series, stacked=False), show=format_seconds,
    )  # fmt: skip


def _chart(
    key: str,
    title: str,
    columns: Sequence[figures.Column],
    span: figures.Span,
    series: Sequence[charts.Series],
    svg: SafeString,
    *,
    top: float,
    show: Callable[[float | None], str],
) -> Chart:
    # What nothing happened in says nothing in a table.
    rows = [
        [_column_name(column.start, span), *(show(one.values[index]) for one in series)]
        for index, column in enumerate(columns)
        if any(one.values[index] for one in series)
    ]
    return Chart(
        id=key,
        title=title,
        svg=svg,
        top=show(top),
        first=_column_name(columns[0].start, span),
        last=_column_name(columns[-1].start, span),
        legend=[(one.label, one.style) for one in series],
        head=[_("Begin"), *(one.label for one in series)],
        rows=rows[::-1],
    )


def _column_name(start: datetime, span: figures.Span) -> str:
    local = timezone.localtime(start)
    if span.length <= timedelta(days=1):
        return date_format(local, "TIME_FORMAT")
    return f"{date_format(local, 'SHORT_DATE_FORMAT')} {date_format(local, 'TIME_FORMAT')}"


def _deferrals(columns: Sequence[figures.Column]) -> list[dict[str, Any]]:
    counts = {
        reason: sum(column.counts[counters.DEFERRED + reason] for column in columns) for reason in counters.REASONS
    }  # fmt: skip
    highest = max(counts.values(), default=0)
    return [
        {"reason": _REASONS[reason], "count": format_count(count), "share": round(100 * count / highest)}
        for reason, count in sorted(counts.items(), key=lambda item: -item[1])
        if count
    ]


def _rates(rates: figures.Rates) -> list[dict[str, Any]]:
    rows = [
        (_("Complaints"), rates.complained, rates.complaint_rate, figures.COMPLAINT_WARNING, figures.COMPLAINT_LIMIT),
        (_("Bounces"), rates.bounced, rates.bounce_rate, figures.BOUNCE_WARNING, figures.BOUNCE_LIMIT),
    ]
    return [
        {
            "label": label,
            "count": format_count(count),
            "rate": format_share(rate),
            "limit": format_share(limit),
            "state": _rate_state(rate, warning, limit),
            "warning": rate is not None and rate >= warning,
        }
        for label, count, rate, warning, limit in rows
    ]


def _rate_state(rate: float | None, warning: float, limit: float) -> str:
    if rate is None:
        return _("No events have come")
    if rate >= limit:
        return _("Over the limit: providers refuse or hide the mail of such senders")
    if rate >= warning:
        return _("Too high: find out which campaign it is, and stop it")
    return _("Good")


def _waiting_row(one: Any) -> dict[str, str]:
    return {
        "queue": one.queue,
        "campaign": one.campaign or "–",
        "count": format_count(one.count) + ("+" if one.more else ""),
        "age": age(one.oldest),
    }


def _backends() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    statuses: dict[str, list[TransportStatus]] = {}
    for status in TransportStatus.objects.using(outbox.database()).order_by("sender_domain"):
        statuses.setdefault(status.using or "default", []).append(status)
    for alias, destination in destinations().items():
        outages = statuses.pop(alias, [])
        rows.append({"alias": alias, "to": destination.shown, "real": destination.is_real, "outages": outages})
    # Mail may name one that is configured no more.
    rows += [{"alias": alias, "to": "", "real": True, "outages": outages} for alias, outages in statuses.items()]
    for row in rows:
        row["outages"] = [
            {
                "domain": status.sender_domain,
                "for": age(status.unavailable_since),
                "next": format_moment(status.next_try_at),
                "reason": status.reason,
            }
            for status in row["outages"]
        ]
    return rows


def _our_queues() -> set[str]:
    return {mailer_settings().QUEUE, mailer_settings().BULK_QUEUE}


def _unserved(workers: Sequence[Worker]) -> list[str]:
    """Our queues that no worker serves, by what workers have reported."""
    served = {name for worker in workers if metrics.is_alive(worker) for name in worker.queues}
    return sorted(_our_queues() - served) if workers else []


def _workers(known: Sequence[Worker]) -> list[dict[str, Any]]:
    ours = _our_queues()
    return [
        {
            "name": worker.name,
            "alive": metrics.is_alive(worker),
            "seen": age(worker.seen_at),
            "queues": ", ".join(sorted(ours & set(worker.queues))),
            "missing": ", ".join(sorted(ours - set(worker.queues))),
            "pool": f"{worker.pool} × {worker.concurrency}" if worker.concurrency else worker.pool,
            "version": worker.version,
            "versions_differ": len({one.version for one in known if metrics.is_alive(one)}) > 1,
        }
        for worker in known
    ]
