"""The inbox on the site. Mails are named by number, so no request names a file; what they hold never runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from congressy_mailer.testing.local_sparkpost.mailbox import read_mailbox

from .pages import POLICY, Addresses
from .reading import Letter, read_letter, read_letters

View = Callable[..., HttpResponse]


def _strict(view: View) -> View:
    """Neither scripts nor anything from elsewhere, in the page as in the mail inside it."""

    @wraps(view)
    def stricter(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        response = view(request, *args, **kwargs)
        response["Content-Security-Policy"] = POLICY
        response["Cache-Control"] = "no-store"
        return response

    return require_safe(stricter)


@_strict
def inbox(request: HttpRequest) -> HttpResponse:
    """All mails."""
    letters = read_letters(settings.RUN_DIRECTORY / "mails")
    return render(request, "inbox/list.html", {"letters": Addresses.of_site().listed(letters), "live": True})


@_strict
def letter(request: HttpRequest, number: int) -> HttpResponse:
    """One mail."""
    return render(request, "inbox/letter.html", {**Addresses.of_site().shown(_find(number)), "live": True})


@_strict
def attachment(request: HttpRequest, number: int, file: int) -> HttpResponse:
    """One of its attachments, to be saved."""
    for one in _find(number).files:
        if one.number == file:
            # Whatever it claims to be, a browser is to store it and not to show it.
            return HttpResponse(
                one.content,
                content_type="application/octet-stream",
                headers={"Content-Disposition": f'attachment; filename="{one.name}"'},
            )
    raise Http404


@_strict
def source(request: HttpRequest, number: int) -> HttpResponse:
    """The mail as it was received."""
    mail = _find(number).mail
    return HttpResponse(
        mail.content,
        content_type="application/octet-stream",
        headers={"Content-Disposition": f'attachment; filename="{mail.file_name}"'},
    )


def _find(number: int) -> Letter:
    for mail in read_mailbox(settings.RUN_DIRECTORY / "mails"):
        if mail.number == number:
            return read_letter(mail)
    raise Http404
