"""``{% load congressy_mailer %}``: what templates of mails can say of the mail itself."""

from __future__ import annotations

from typing import Any

from django import template

from ..content.templates import UNSUBSCRIBE_URL

register = template.Library()


@register.simple_tag(takes_context=True)
def unsubscribe_url(context: template.Context) -> Any:
    """Where the recipient of this mail leaves the list that it belongs to, or all mail that is not transactional.

    ``#`` where the template is rendered by somebody else, as for a preview.

    Raises:
        ContentError: the mail has several recipients.
        ContentNotReady: ``SITE_URL`` is not set, or the host's URLs do not have those of the mailer.
    """
    link = context.get(UNSUBSCRIBE_URL)
    return link() if callable(link) else "#"
