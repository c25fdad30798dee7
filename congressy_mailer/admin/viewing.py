"""The pages that show what a mail says: the frame, the file of the whole mail, and its attachments.

A mail is somebody else's HTML under the host's own domain, beside the session of a person who may do much. So it comes
from a view of its own, whose policy (CSP Level 3) has the browser run, send and fetch nothing, in a frame of an origin
of its own; and nobody sees it who may not, or without a trace.
"""

from __future__ import annotations

from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.html import escape
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _

from ..models import Mail, Message

VIEW_CONTENT = "congressy_mailer.view_content"

_SALT = "congressy_mailer.admin.frame"
# Seconds for which a page's frames can be opened without being written down anew.
_FRAME_AGE = 3600

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'self'; sandbox"
)
# Asked for by the person who looks: the sender learns that, and when.
_POLICY_WITH_IMAGES = _POLICY.replace("img-src data:", "img-src data: https: http:")


def may_view_content(request: HttpRequest, mail: Mail) -> bool:
    """Whether a user may see a mail's content. That of a sensitive mail is shown to nobody."""
    return not mail.sensitive and bool(request.user.has_perm(VIEW_CONTENT))


def check_may_view(request: HttpRequest, mail: Mail) -> None:
    """
    Raises:
        PermissionDenied: the user may not see the content.
    """
    if not may_view_content(request, mail):
        raise PermissionDenied


def log(request: HttpRequest, mails: list[Any], what: str) -> None:
    """Write down who did it, in the history of each of them."""
    LogEntry.objects.log_actions(str(request.user.pk), mails, CHANGE, what)


def frame_token(request: HttpRequest, message: Message) -> str:
    """What opens the frames of a page that was written down."""
    return signing.dumps([str(message.pk), str(request.user.pk)], salt=_SALT)


def check_frame_token(request: HttpRequest, message: Message) -> None:
    """
    Raises:
        PermissionDenied: it was not given to this user for this message, or is too old.
    """
    try:
        opened = signing.loads(request.GET.get("token", ""), salt=_SALT, max_age=_FRAME_AGE)
    except signing.BadSignature:
        raise PermissionDenied from None
    if opened != [str(message.pk), str(request.user.pk)]:
        raise PermissionDenied


def frame(request: HttpRequest, message: Message) -> HttpResponse:
    """The HTML or the text, for a frame."""
    from .preview import preview

    check_frame_token(request, message)
    shown = preview(message)
    if request.GET.get("part") == "text":
        body = _TEXT.format(escape(shown.text))
    elif not shown.html:
        raise Http404
    else:
        body = _HTML + shown.html
    response = HttpResponse(body)
    with_images = request.GET.get("images") == "yes"
    return _locked(response, _POLICY_WITH_IMAGES if with_images else _POLICY)


# The first target counts (HTML Living Standard, "base"): a frame without allow-popups opens no window.
_HTML = '<!DOCTYPE html><meta charset="utf-8"><base target="_blank">'
_TEXT = (
    '<!DOCTYPE html><meta charset="utf-8">'
    '<pre style="white-space: pre-wrap; overflow-wrap: anywhere; font: 14px/1.5 monospace; margin: 12px">{}</pre>'
)


def raw(request: HttpRequest, message: Message) -> HttpResponse:
    """The whole mail as a file that mail programs open."""
    from .preview import preview

    shown = preview(message)
    if shown.problem:
        raise Http404(shown.problem)
    log(request, [message], _("Downloaded the mail."))
    return _download(shown.wire, f"{message.pk}.eml", "message/rfc822")


def attachment(request: HttpRequest, message: Message, number: int) -> HttpResponse:
    """One of its attachments as a file."""
    from .preview import preview

    shown = preview(message)
    if shown.problem or number >= len(shown.files):
        raise Http404
    log(request, [message], _("Downloaded an attachment."))
    one = shown.files[number]
    # The browser must download the file, even if its type says that it can be shown.
    return _download(one.content, one.name, "application/octet-stream")


def _download(content: bytes, name: str, mimetype: str) -> HttpResponse:
    response = HttpResponse(content, content_type=mimetype)
    response["Content-Disposition"] = content_disposition_header(True, name) or "attachment"
    return _locked(response, _POLICY)


def _locked(response: HttpResponse, policy: str) -> HttpResponse:
    response["Content-Security-Policy"] = policy
    response["X-Content-Type-Options"] = "nosniff"
    response["X-Frame-Options"] = "SAMEORIGIN"
    response["Referrer-Policy"] = "no-referrer"
    response["X-DNS-Prefetch-Control"] = "off"
    response["Cache-Control"] = "no-store"
    return response
