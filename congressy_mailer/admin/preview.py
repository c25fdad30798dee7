"""A mail as its readers see it, taken apart: composed for this by the same code that sends it.

Nothing in it can be trusted: it is shown by :mod:`.viewing` in a frame that runs nothing and fetches nothing.
"""

from __future__ import annotations

import base64
import html as html_entities
import re
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext_lazy as _

from ..exceptions import MailerError
from ..mime.parts import file_content, is_shown_text, read_fields, read_parts, text_content
from ..models import Message, State
from ..models.choices import FINAL
from ..replies import error_text

# Images that are shown within the HTML, together.
_MOST_INLINE = 5_000_000
# Without two repetitions side by side, and with bounds: a hostile mail must not keep the page busy.
_REMOTE = re.compile(
    r"""(?:\b(?:src|background|poster)\s*=|<image\b[^>]{0,500}\bhref\s*=|\burl\()\s*(?:["']\s*)?(?:https?:)?//"""
    r"""|\bsrcset\s*=(?:[^>]{0,2000}[\s,"'])?(?:https?:)?//""",
    re.IGNORECASE,
)
_CID = re.compile(r"cid:([^\s\"'<>()]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PreviewFile:
    """An attachment."""

    name: str
    mimetype: str
    content: bytes = field(repr=False)
    content_id: str = ""


@dataclass(slots=True)
class Preview:
    """What a mail says."""

    #: How true it is to what was or will be sent, in a sentence.
    note: str
    #: Why there is nothing to be seen; empty: there is.
    problem: str = ""
    wire: bytes = field(default=b"", repr=False)
    headers: list[tuple[str, str]] = field(default_factory=list)
    #: Empty where it has none, as the HTML.
    text: str = ""
    html: str = ""
    files: list[PreviewFile] = field(default_factory=list)

    @property
    def has_remote_images(self) -> bool:
        """Whether its HTML asks other servers for something that it shows."""
        return _REMOTE.search(html_entities.unescape(self.html)) is not None


def preview(message: Message) -> Preview:
    """Compose a message, without sending it or changing anything."""
    shown = Preview(str(_note(message)))
    if message.content_dropped_at is not None or message.content.content_dropped_at is not None:
        shown.problem = str(_("The content was deleted, as the settings of this site require."))
        return shown
    # All that sending needs is loaded where a mail is looked at, and not by every process of the host.
    from ..delivery.composing import Composer

    composer = Composer()
    try:
        composer.prepare([message])
        shown.wire = composer.compose(message).wire
    except MailerError as error:
        shown.problem = str(error)
    # A template, a tag or a method of the host's may raise anything, and is what support wants to know of.
    except Exception as error:
        shown.problem = error_text(error)
    else:
        _take_apart(shown)
    return shown


def _note(message: Message) -> Any:
    was_sent = message.sent_at is not None
    if message.mime is not None:
        return _("This is what was sent, byte for byte.") if was_sent else _("This is what is sent, byte for byte.")
    if not was_sent:
        if message.state in FINAL - {State.HELD}:
            return _("It was not sent. This is what would be sent if it were tried again now.")
        return _("It has not been sent yet. This is what would be sent now.")
    if message.content.template:
        return _(
            "This was made again just now from its template and the data that were stored with it. Where the template "
            "or an object that it shows has been changed since, the reader saw something else."
        )
    return _("This was just made again from the stored texts, which are what was sent.")


def _take_apart(shown: Preview) -> None:
    shown.headers, parts = read_fields(shown.wire), read_parts(shown.wire)
    shown.text, shown.html = parts.text, parts.html
    shown.files += [
        PreviewFile(kind.partition(";")[0], kind, str(content).encode())
        for content, kind in parts.alternatives
        if content not in (shown.text, shown.html)
    ]
    for part in parts.files:
        kind, content_id = part.get_content_type(), str(part.get("Content-ID", "")).strip("<> ")
        if kind == "text/html" and not shown.html and is_shown_text(part):
            shown.html = text_content(part)
        elif kind == "text/plain" and not shown.text and is_shown_text(part):
            shown.text = text_content(part)
        else:
            shown.files.append(PreviewFile(part.get_filename() or kind, kind, file_content(part), content_id))
    shown.html = _with_images(shown.html, shown.files)


def _with_images(html: str, files: list[PreviewFile]) -> str:
    """The images that go with it, in place of the references to them."""
    left = _MOST_INLINE
    data: dict[str, str] = {}
    for one in files:
        if one.content_id and one.mimetype.startswith("image/") and len(one.content) <= left:
            left -= len(one.content)
            data[one.content_id] = f"data:{one.mimetype};base64,{base64.b64encode(one.content).decode()}"
    return _CID.sub(lambda found: data.get(found[1], found[0]), html)
