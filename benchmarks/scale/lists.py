"""How long the admin's lists, searches and pages take beside a long history, and how many queries: the whole answer."""

from __future__ import annotations

import time
from collections import defaultdict
from statistics import median

from django.contrib.auth.models import User
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from congressy_mailer import outbox, send_mail
from congressy_mailer.models import Batch

from ..report import Goal, Line, Report
from .databases import Sides, analyze, using

_GOAL = Goal("ours", at_most=300.0)
_ROUNDS = 7
_LIST = "/admin/congressy_mailer/message/"


def measure(sides: Sides, rows: int, report: Report) -> None:
    """Each page as support sees it, in the small database and in the large one."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    queries: dict[str, int] = {}
    for alias in sides[1:]:
        with using(alias):
            client, pages = _prepare()
            analyze(alias)
            for _ in range(_ROUNDS):
                for what, address in pages.items():
                    with CaptureQueriesContext(connections[alias]) as captured:
                        began = time.perf_counter()
                        answer = client.get(address)
                        answer.content  # noqa: B018
                        found[what][alias].append(1000 * (time.perf_counter() - began))
                    if answer.status_code != 200:
                        raise AssertionError(f"{address}: {answer.status_code}")
                    queries[what] = max(len(captured), queries.get(what, 0))
    for what, values in found.items():
        # The first is the one that compiles the templates.
        small, large = median(values[sides.small][1:]), median(values[sides.large][1:])
        name = f"{sides.vendor}: {what} at {rows:,}, {queries[what]} queries"
        report.add(Line("scale", name, large, "at 10,000", small, "ms", _GOAL, runs=dict(values)))


def _prepare() -> tuple[Client, dict[str, str]]:
    with_names = send_mail("Boleto", "x", to=["Dona Florinda <florinda@example.com>", "chaves@example.com"])
    send_mail("Held", "x", to="held@example.com")
    outbox.cancel(with_names.pk)
    client = Client()
    client.force_login(User.objects.create_superuser("support"))
    oldest = Batch.objects.order_by("id").first()
    assert oldest is not None
    return client, {
        "list": _LIST,
        "last page that is counted": f"{_LIST}?p=199",
        "search by the address of one": f"{_LIST}?q=chaves%40example.com",
        "search by an address that 1 in 100 have": f"{_LIST}?q=pessoa7%40example.com",
        "search by the beginning of many": f"{_LIST}?q=pessoa",
        "search by name": f"{_LIST}?q=florinda",
        "search by Message-ID": f"{_LIST}?q={with_names.message_id.strip('<>')}",
        "search for what is not there": f"{_LIST}?q=nobody%40nowhere.example",
        "filter by cancelled": f"{_LIST}?status=cancelled",
        "filter by held, of which there is none": f"{_LIST}?status=held",
        "filter by queued": f"{_LIST}?status=queued",
        "filter by the last 30 days": f"{_LIST}?since=30",
        "messages of the oldest batch": f"{_LIST}?batch={oldest.pk}",
        "page of a message": f"{_LIST}{with_names.pk}/change/",
        "what a message says": f"{_LIST}{with_names.pk}/content/",
    }
