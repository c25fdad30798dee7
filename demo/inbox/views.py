"""The inbox on the site. Mails are named by number, so no request names a file; what they hold never runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from congressy_mailer.testing.local_sparkpost.mailbox import read_mailbox

from .pages import POLICY, PageUrls
from .reading import Envelope, read_letter, read_letters

View = Callable[..., HttpResponse]


def _with_content_policy(view: View) -> View:
    """Neither scripts nor anything from elsewhere, in the page as in the mail inside it."""

    @wraps(view)
    def wrapper(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        response = view(request, *args, **kwargs)
        response["Content-Security-Policy"] = POLICY
        response["Cache-Control"] = "no-store"
        return response

    return require_safe(wrapper)


@_with_content_policy
def inbox(request: HttpRequest) -> HttpResponse:
    """All mails."""
    letters = read_letters(settings.RUN_DIRECTORY / "mails")
    return render(request, "inbox/list.html", {"letters": PageUrls.of_site().list_entries(letters), "live": True})


@_with_content_policy
def letter(request: HttpRequest, number: int) -> HttpResponse:
    """One mail."""
    return render(request, "inbox/letter.html", {**PageUrls.of_site().page_context(_find(number)), "live": True})


@_with_content_policy
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


@_with_content_policy
def source(request: HttpRequest, number: int) -> HttpResponse:
    """The mail as it was received."""
    mail = _find(number).mail
    return HttpResponse(
        mail.content,
        content_type="application/octet-stream",
        headers={"Content-Disposition": f'attachment; filename="{mail.file_name}"'},
    )


def _find(number: int) -> Envelope:
    for mail in read_mailbox(settings.RUN_DIRECTORY / "mails"):
        if mail.number == number:
            return read_letter(mail)
    raise Http404
