"""How long whoever looks waits, and how many queries that takes: the admin, ``manage.py mailer``, and monitoring.

The whole answer of each page and command, as a person or a monitoring system gets it, in the large database; first
beside a dozen open batches, then beside thousands. Of several repetitions the fastest counts: what else the machine has
to do makes the others slower, and nothing makes one faster than it is.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import Client

from congressy_mailer import send_mail
from congressy_mailer.admin.lists import first_id
from congressy_mailer.health import check_health
from congressy_mailer.models import Batch, Message, Suppression, WebhookBatch, clock

from ..report import Goal, Line, Report
from .databases import Sides, analyze, using
from .surroundings import BATCHES, MANY_BATCHES, add_many_batches, surround

_PAGE = Goal("ours", at_most=300.0)
_COMMAND = Goal("ours", at_most=1000.0)
_ROUNDS = 5
_ADMIN = "/admin/congressy_mailer"
_LIST = f"{_ADMIN}/message/"

#: What answers, by its name; and the goal that it has.
Looks = dict[str, tuple[Callable[[], Any], Goal]]


class Counting:
    """Counts queries. Django's log of them ends at 9,000, and each entry takes time."""

    def __init__(self) -> None:
        self.queries = 0

    def __call__(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        self.queries += 1
        return execute(*arguments)


def measure(sides: Sides, rows: int, report: Report) -> None:
    """Everything that people look at, in the large database."""
    alias = sides.large
    began = time.monotonic()
    surround(alias)
    report.say(f"  events, recipients, suppressions and what waits: stored in {time.monotonic() - began:.0f} s")
    before = _look(alias, _all(alias))
    for what, (times, queries, goal) in before.items():
        name = f"{sides.vendor}: {what} at {rows:,}, {queries} queries"
        report.add(Line("scale", name, min(times), "slowest", max(times), "ms", goal, runs={"times": times}))
    add_many_batches(alias)
    for what, (times, queries, goal) in _look(alias, _of_queue(alias)).items():
        few = before[what]
        name = f"{sides.vendor}: {what} at {rows:,} and {MANY_BATCHES:,} open batches, {queries} queries"
        if queries != few[1]:
            name += f" ({few[1]} beside {BATCHES})"
        report.add(Line("scale", name, min(times), f"beside {BATCHES}", min(few[0]), "ms", goal, runs={"times": times}))


def _look(alias: str, looks: Looks) -> dict[str, tuple[list[float], int, Goal]]:
    """Milliseconds that each took, how many queries it was, and its goal."""
    times: dict[str, list[float]] = {what: [] for what in looks}
    queries: dict[str, int] = {}
    with using(alias):
        for round_number in range(_ROUNDS + 1):
            for what, (look, _) in looks.items():
                count = Counting()
                with connections[alias].execute_wrapper(count):
                    began = time.perf_counter()
                    look()
                    taken = 1000 * (time.perf_counter() - began)
                # The first look compiles the templates.
                if round_number:
                    times[what].append(taken)
                    queries[what] = count.queries
    return {what: (times[what], queries[what], goal) for what, (_, goal) in looks.items()}


def _all(alias: str) -> Looks:
    with using(alias):
        with_names = send_mail("Boleto", "x", to=["Dona Florinda <florinda@example.com>", "chaves@example.com"])
        send_mail("Held", "x", to="held@example.com")
        analyze(alias)
        oldest = Batch.objects.order_by("id").first()
        newest = Batch.objects.order_by("-id").first()
        # Of the middle of the history, with its events.
        between = first_id(clock.now() - timedelta(days=150))
        old = Message.objects.filter(id__gte=between, state="sent").order_by("id").first()
        suppressed = Suppression.objects.order_by("id").first()
        webhook = WebhookBatch.objects.order_by("id").first()
        assert oldest is not None
        assert newest is not None
        assert old is not None
        assert suppressed is not None
        assert webhook is not None
        first_of_newest = newest.messages.order_by("id").first()
        assert first_of_newest is not None
        show = _client(alias)
        lists = {
            "list": _LIST,
            "list, page 2": f"{_LIST}?p=2",
            "list, last page that is counted": f"{_LIST}?p=200",
            "search by the address of one": f"{_LIST}?q=chaves%40example.com",
            "search by the address of ten": f"{_LIST}?q={old.address.replace('@', '%40')}",
            "search by an address that 1 in 100 have": f"{_LIST}?q=pessoa7%40example.com",
            "search by the beginning of many addresses": f"{_LIST}?q=pessoa",
            "search by a name": f"{_LIST}?q=florinda",
            "search by a name that 1 in 10 have": f"{_LIST}?q=silva",
            "search by a copied address": f"{_LIST}?q=copia1%40example.com",
            "search by what it is about": f"{_LIST}?q=pedido+33",
            "search by Message-ID": f"{_LIST}?q={with_names.message_id.strip('<>')}",
            "search by id": f"{_LIST}?q={old.pk}",
            "search by a part of a subject": f"{_LIST}?q=olet",
            "search for what is not there": f"{_LIST}?q=nobody%40nowhere.example",
            "list, queued": f"{_LIST}?status=queued",
            "list, scheduled": f"{_LIST}?status=scheduled",
            "list, sent": f"{_LIST}?status=sent",
            "list, failed": f"{_LIST}?status=failed",
            "list, cancelled: one": f"{_LIST}?status=cancelled",
            "list, held: none": f"{_LIST}?status=held",
            "list, bounced": f"{_LIST}?status=bounced",
            "list, complained": f"{_LIST}?status=complained",
            "list of the last 30 days": f"{_LIST}?since=30",
            "list of the oldest batch": f"{_LIST}?batch={oldest.pk}",
            "list of a batch, queued": f"{_LIST}?batch={newest.pk}&status=queued",
            "list of what is about an object": f"{_LIST}?about=shop.order:33",
            "list of what is about no object": f"{_LIST}?about=shop.order:0",
            "page of a new message": f"{_LIST}{with_names.pk}/change/",
            "page of an old message with events": f"{_LIST}{old.pk}/change/",
            "page of a message in a batch": f"{_LIST}{first_of_newest.pk}/change/",
            "what a message says": f"{_LIST}{with_names.pk}/content/",
            "what a message in a batch says": f"{_LIST}{first_of_newest.pk}/content/",
            "list of suppressions": f"{_ADMIN}/suppression/",
            "suppressions, complaints": f"{_ADMIN}/suppression/?source=complaint",
            "search for a suppressed address": f"{_ADMIN}/suppression/?q=pessoa500%40example.com",
            "search for the beginning of suppressed addresses": f"{_ADMIN}/suppression/?q=pessoa5",
            "search for an address that is not suppressed": f"{_ADMIN}/suppression/?q=nobody%40nowhere.example",
            "page of a suppressed address": f"{_ADMIN}/suppression/{suppressed.pk}/change/",
            "list of webhook batches": f"{_ADMIN}/webhookbatch/",
            "page of the oldest batch": f"{_ADMIN}/batch/{oldest.pk}/change/",
        }
    looks: Looks = {what: (lambda address=address: show(address), _PAGE) for what, address in lists.items()}
    some = {"one": str(with_names.pk), "of an address": old.address, "of nobody": "nobody@nowhere.example"}
    looks |= {
        f"mailer show, {what}": (lambda which=which: _run("show", which), _COMMAND) for what, which in some.items()
    }
    return looks | _of_queue(alias)


def _of_queue(alias: str) -> Looks:
    """What depends on what waits."""
    show = _client(alias)
    with using(alias):
        batch = Batch.objects.filter(key="lote-0").get()
    pages = {
        "dashboard": f"{_ADMIN}/dashboard/",
        "dashboard of a week": f"{_ADMIN}/dashboard/?span=week",
        "list of batches": f"{_ADMIN}/batch/",
        "search for a batch by its key": f"{_ADMIN}/batch/?q=lote-7",
        "search for a batch that is not there": f"{_ADMIN}/batch/?q=nichts",
        "page of a batch under way": f"{_ADMIN}/batch/{batch.pk}/change/",
        "list of pauses": f"{_ADMIN}/pause/",
        "metrics for Prometheus": "/mailer/metrics/",
    }
    looks: Looks = {what: (lambda address=address: show(address), _PAGE) for what, address in pages.items()}
    # The page for load balancers asks this once in some seconds.
    looks["health, by which load balancers are answered"] = (check_health, _PAGE)
    commands = {"mailer status": ("status",), "mailer health": ("health",)}
    looks |= {what: (lambda words=words: _run(*words), _COMMAND) for what, words in commands.items()}
    looks["mailer doctor, as far as it asks the database"] = (_examine, _COMMAND)
    return looks


def _client(alias: str) -> Callable[[str], None]:
    with using(alias):
        user, _ = User.objects.get_or_create(username="support", defaults={"is_staff": True, "is_superuser": True})
        client = Client(headers={"authorization": f"Bearer {settings.CONGRESSY_MAILER['METRICS_TOKEN']}"})
        client.force_login(user)

    def show(address: str) -> None:
        answer = client.get(address)
        assert answer.status_code == 200, f"{address}: {answer.status_code}"
        answer.content  # noqa: B018

    return show


def _run(*words: str) -> None:
    # That something is wrong, or that nothing was found.
    with suppress(CommandError):
        call_command("mailer", *words, stdout=io.StringIO(), stderr=io.StringIO())


def _examine() -> None:
    _run("doctor", "database", "templates", "worker-queues", "clocks", "bulk-one-click", "bulk-complaints")
