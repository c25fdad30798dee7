"""``make demo``: many people register at once, and every mail is accounted for.

Imported once Django is set up; see :mod:`.__main__`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import UUID

from django.utils import timezone

from congressy_mailer.models import Message, State
from congressy_mailer.models.choices import FINAL

from . import terminal
from .events.mails import send_news
from .events.models import Event
from .events.seed import ADMIN, FORGETFUL
from .inbox.pages import write_pages
from .kinds import kind, kinds
from .outcomes import missing, outcomes, suppressed_by_bounce
from .reader import unsubscribe_in_one_click
from .services import Services
from .tally import states, take_tally
from .visitors import BOUNCING, DELAYED, READER, REFUSED, Visitor, people

#: People at the site at the same time.
_AT_ONCE = 4
#: How long everything may take before it counts as stuck; the slowest mail waits for two retries, about 15 s.
_LONGEST_SECONDS = 180.0
#: How long events may take.
_LONGEST_EVENTS = 60.0

_TALKS = (
    ("Marina Alcântara", "Armazenamento em baterias: o que aprendemos em dez anos"),
    ("Otávio Peçanha", "Redes inteligentes fora dos grandes centros"),
)


class StuckError(RuntimeError):
    """Some mails do not reach their end."""


def run_demo(services: Services, people_count: int) -> bool:
    """Have people use the site, wait for their mails, and print what became of them.

    Returns:
        Whether nothing was lost or sent twice, and only the mails failed that have to.

    Raises:
        PageError: the site refused somebody.
        StuckError: mails did not reach their end in time.
    """
    terminal.say(
        f"{people_count} people register on the site's own page, {len(FORGETFUL)} forgot their password, "
        f"{len(_TALKS)} speakers are invited."
    )
    report = _troubles_reporter()
    with terminal.progress(people_count) as bars, ThreadPoolExecutor(_AT_ONCE) as crowd:
        visits = [crowd.submit(Visitor(services.address).register, *person) for person in people(people_count)]
        others = [crowd.submit(_ask_for_new_passwords, services), crowd.submit(_invite_speakers, services)]
        try:
            _follow([*visits, *others], people_count, bars, report)
        finally:
            for visit in visits:
                visit.cancel()
    _wait_until(suppressed_by_bounce)
    terminal.say(f"{BOUNCING} bounced, and was put on the suppression list.")
    terminal.say(f"Everybody registered gets the news: {_send_news(services)} mails.")
    _wait_for_mails(report)
    if unsubscribe_in_one_click(services.mails, READER):
        terminal.say(f"{READER} unsubscribes from the news in one click.")
    _wait_until(lambda: not missing())
    return _conclude(services)


def use_site(services: Services) -> None:
    """A few people use the site, so that there is something to see."""
    for person in people(8):
        Visitor(services.address).register(*person)
    _ask_for_new_passwords(services)
    _invite_speakers(services)
    _wait_until(suppressed_by_bounce)
    _send_news(services)
    _wait_for_mails(_troubles_reporter())
    unsubscribe_in_one_click(services.mails, READER)


def _wait_until(happened: Callable[[], bool]) -> bool:
    """Wait for what SparkPost tells, which comes a little later; returns whether it came."""
    deadline = time.monotonic() + _LONGEST_EVENTS
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _send_news(services: Services) -> int:
    """Returns to how many."""
    batch = send_news(Event.objects.earliest("starts_at"), f"{services.address}/")
    return batch.messages.count()


def _wait_for_mails(report: Callable[[], None]) -> None:
    deadline = time.monotonic() + _LONGEST_SECONDS
    while Message.objects.exclude(state__in=FINAL).exists():
        report()
        if time.monotonic() > deadline:
            raise StuckError(f"Mails were still on their way after {_LONGEST_SECONDS:.0f} s.")
        time.sleep(0.2)


def _ask_for_new_passwords(services: Services) -> None:
    for name in FORGETFUL:
        first_name = name.split()[0].lower()
        Visitor(services.address).ask_for_new_password(f"{first_name}@participantes.example")


def _invite_speakers(services: Services) -> None:
    organiser = Visitor(services.address)
    organiser.log_in(ADMIN, services.admin_password)
    for number, (speaker, talk) in enumerate(_TALKS, 1):
        organiser.invite(speaker, f"palestrante-{number}@universidade.example", talk)


def _follow(visits: list[Future[None]], people_count: int, bars: terminal.Bars, report: Callable[[], None]) -> None:
    """Show how far it is, until everybody has been at the site and every mail has reached its end."""
    deadline = time.monotonic() + _LONGEST_SECONDS
    while True:
        over = all(visit.done() for visit in visits)
        for visit in visits:
            if visit.done():
                visit.result()
        bars.registered(sum(visit.done() for visit in visits[:people_count]))
        report()
        now = states()
        finished = sum(now[state] for state in FINAL)
        bars.finished(finished, now.total())
        if over and finished == now.total():
            return
        if time.monotonic() > deadline:
            raise StuckError(f"{now.total() - finished} mails were still on their way after {_LONGEST_SECONDS:.0f} s.")
        time.sleep(0.2)


def _troubles_reporter() -> Callable[[], None]:
    """A function that prints each attempt that went wrong, once."""
    told: set[tuple[UUID, int]] = set()

    def report() -> None:
        for message in Message.objects.filter(state__in=[State.DEFERRED, State.FAILED]).order_by("id"):
            if (message.id, message.attempts) in told:
                continue
            told.add((message.id, message.attempts))
            said = (
                f"  {', '.join(message.to)} ({kind(message)}): "
                f'attempt {message.attempts} was answered "{message.reply}".'
            )
            if message.due_at is None:
                terminal.say(f"{said} Given up.")
            else:
                seconds = (message.due_at - timezone.now()).total_seconds()
                terminal.say(f"{said} Tried again {f'in {seconds:.0f} s' if seconds >= 0.5 else 'now'}.")

    return report


def _conclude(services: Services) -> bool:
    tally = take_tally(services.mails)
    index = write_pages(services.mails)
    terminal.say()
    terminal.say_kinds(kinds())
    terminal.say_states(states())
    terminal.say_outcomes(outcomes())
    terminal.say(f"{REFUSED} is always refused: its mails failed, as they should.")
    suppressed = [message.to[0] for message in Message.objects.filter(state=State.SUPPRESSED).order_by("id")]
    terminal.say(f"Suppressed since a bounce or a complaint, and so without the news: {', '.join(suppressed)}.")
    terminal.say(f"Received mails: {services.mails} (*.eml)")
    terminal.say(f"To browse them: {index}")
    expected = (
        tally.lost == tally.duplicated == 0
        and not missing()
        and all(message.to == [REFUSED] for message in Message.objects.filter(state=State.FAILED))
        and Message.objects.filter(state=State.FAILED, to=[REFUSED]).exists()
        and Message.objects.filter(to=[DELAYED], attempts=3).exists()
    )
    if not expected:
        terminal.say("That is not what should have happened.")
        for what in missing():
            terminal.say(f"  It did not happen that {what}.")
        terminal.say_log(services.worker)
    terminal.say(f"demo: {tally}")
    return expected
