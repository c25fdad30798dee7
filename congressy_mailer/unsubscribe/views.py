"""The page that a link to unsubscribe leads to. Looking at it changes nothing: what scans mails follows links."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import translation
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from ..conf import mailer_settings
from ..models import Message
from ..models.transactions import database
from ..tracking.recording import record_resubscribed, record_unsubscribed
from . import preferences
from .links import BadLink, Link, parse_token

_ONE_CLICK = "One-Click"

# The result of a choice by which a recipient may have left.
_LEFT = ("unsubscribed", "unsubscribed_all", "saved")
# And one by which they may have come back.
_RETURNED = ("resubscribed", "saved")


def _private(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """The address in it is one person's."""

    @wraps(view)
    def private(request: HttpRequest, *args: object, **options: object) -> HttpResponse:
        response = view(request, *args, **options)
        response["Referrer-Policy"] = "no-referrer"
        response["X-Robots-Tag"] = "noindex"
        return response

    return private


# The link was sent to its recipient alone, and mail programs post without a cookie: the signature is the token.
@csrf_exempt
@login_not_required
@never_cache
@_private
@require_http_methods(["GET", "HEAD", "POST"])
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """Show the page; on POST, do what was chosen on it, or what a mail program asks for (RFC 8058 §3.2).

    Args:
        request: GET shows the page and changes nothing. POST leaves at once, unless the form on the page says
            otherwise.
        token: from :func:`.links.make_token`.
    """
    try:
        link = parse_token(token)
    except BadLink:
        return render(request, "congressy_mailer/unsubscribe.html", {"status": "unknown"}, status=404)
    with translation.override(_language(link, request)):
        status = _apply_choice(request, link) if request.method == "POST" else "ask"
        if status != "ask":
            unsubscribed = link.list_id in preferences.unsubscribed_lists(link.address, [link.list_id])
            if unsubscribed and status in _LEFT:
                record_unsubscribed(link.message, link.address)
            elif not unsubscribed and status in _RETURNED:
                record_resubscribed(link.message, link.address)
        return render(request, "congressy_mailer/unsubscribe.html", _page_context(link, status))


def _apply_choice(request: HttpRequest, link: Link) -> str:
    """Returns what has become of it, as the page tells it."""
    choice = request.POST.get("choice", "")
    if choice == "stay":
        preferences.resubscribe(link.address, link.list_id)
        stopped = link.list_id in preferences.unsubscribed_lists(link.address, [link.list_id])
        return "stopped" if stopped else "resubscribed"
    if choice == "save":
        preferences.choose_lists(link.address, request.POST.getlist("list"), "Chosen on the unsubscribe page.")
        return "saved"
    if choice == "all":
        preferences.unsubscribe(link.address, "", "Unsubscribed from everything on the unsubscribe page.")
        return "unsubscribed_all"
    one_click = request.POST.get("List-Unsubscribe") == _ONE_CLICK
    preferences.unsubscribe(
        link.address, link.list_id, "One click in the mail program." if one_click else "By the link."
    )
    return "unsubscribed"


def _page_context(link: Link, status: str) -> dict[str, object]:
    lists = mailer_settings().LISTS
    unwanted = preferences.unsubscribed_lists(link.address, ["", link.list_id, *lists])
    if status == "ask" and link.list_id in unwanted:
        status = "unsubscribed_all" if "" in unwanted else "unsubscribed"
    return {
        "status": status,
        "address": link.address,
        "list_name": lists.get(link.list_id, link.list_id),
        "lists": [(list_id, name, list_id not in unwanted) for list_id, name in lists.items()],
    }


def _language(link: Link, request: HttpRequest) -> str:
    """That of the mail; where it is long gone, that of the browser."""
    languages = Message.objects.using(database()).filter(pk=link.message).values_list("language", flat=True)
    return languages.first() or translation.get_language_from_request(request)
