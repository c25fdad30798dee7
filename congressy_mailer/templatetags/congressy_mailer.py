"""``{% load congressy_mailer %}``: what templates of mails can say of the mail itself, and pages of the mails."""

from __future__ import annotations

from typing import Any

from django import template
from django.db.models import Model, QuerySet

register = template.Library()


@register.simple_tag(takes_context=True)
def unsubscribe_url(context: template.Context) -> Any:
    """Where the recipient of this mail leaves the list that it belongs to, or all mail that is not transactional.

    ``#`` where the template is not rendered for a mail, as in a preview.

    Raises:
        ContentError: the mail has several recipients.
        ContentNotReady: ``SITE_URL`` is not set, or the host's URLs do not have those of the mailer.
    """
    # Django loads this module with its template engine, also where no mail is made.
    from ..content.templates import UNSUBSCRIBE_URL

    link = context.get(UNSUBSCRIBE_URL)
    return link() if callable(link) else "#"


@register.simple_tag
def mails_about(instance: Model) -> QuerySet[Any]:
    """The mails about an object of the host's, newest first, for a page of the host's own.

    ``{% mails_about order as mails %}{% for mail in mails|slice:":10" %} … {{ mail.get_state_display }}{% endfor %}``
    """
    from ..models import about

    return about.mails_about(instance)
