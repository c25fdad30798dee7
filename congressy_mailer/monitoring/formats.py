"""Counts, shares, times and ages as the dashboard shows them, in the language in force."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import outbox
from ..models import clock


def format_count(value: int) -> str:
    """1,234 or 1.234."""
    return number_format(value, force_grouping=True)


def counted(value: int) -> str:
    """The same, of something that is counted no further than a limit."""
    return format_count(value) + ("+" if value >= outbox.COUNTED else "")


def format_share(value: float | None) -> str:
    """0.12 % or 0,12 %."""
    return "–" if value is None else f"{number_format(100 * value, 2)} %"


def format_seconds(value: float | None) -> str:
    """350 ms, 2.5 s, 4 min or 3 h."""
    if value is None:
        return "–"
    if value < 1:
        return f"{round(value * 1000)} ms"
    if value < 120:
        return f"{number_format(value, 1)} s"
    if value < 7200:
        return f"{round(value / 60)} min"
    return f"{number_format(value / 3600, 1)} h"


def format_moment(moment: datetime) -> str:
    """Time of day; with the date where that is another day."""
    local = timezone.localtime(moment)
    if local.date() == timezone.localdate():
        return date_format(local, "TIME_FORMAT")
    return date_format(local, "SHORT_DATETIME_FORMAT")


def age(moment: datetime | None) -> str:
    """How long ago, in words."""
    if moment is None:
        return "–"
    seconds = max(int((clock.now() - moment).total_seconds()), 0)
    if seconds < 120:
        return ngettext("%(count)d second", "%(count)d seconds", seconds) % {"count": seconds}
    return timesince(moment, clock.now(), depth=1)


def ago(moment: datetime) -> str:
    """The same, as a moment."""
    return _("%(time)s ago") % {"time": age(moment)}
