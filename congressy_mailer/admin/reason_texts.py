"""Reasons of the package's own, for translation; :mod:`.reasons` finds them in what is stored.

A test reads what may be stored out of the source and finds what is missing here.
"""

from __future__ import annotations

from typing import Final

from django.utils.translation import gettext_noop, ngettext_lazy

from .stored_texts import Counted

#: Behind a code of SMTP or HTTP, or without one. What a server says stands in the same place.
REPLIES: Final = (
    gettext_noop("accepted by the mail backend"),
    gettext_noop("accepted by the mail backend: %(ids)s"),
    gettext_noop("%(status)s, says the mail backend"),
    gettext_noop("%(code)s Not sent: %(problem)s"),
    gettext_noop("The recipient was refused."),
    gettext_noop("SparkPost's HTTP API answered %(status)s at %(uri)s: %(words)s"),
    gettext_noop("(what else was said is not kept, because the message is sensitive)"),
    gettext_noop("no reply (what else was said is not kept, because the message is sensitive)"),
    gettext_noop("%(error)s (what else was said is not kept, because the message is sensitive)"),
    gettext_noop("%(said)s (redirected to %(addresses)s)"),
    gettext_noop("%(said)s (in doubt: the server may have taken it)"),
)

#: Why a mail was not sent, behind a code.
PROBLEMS: Final = (
    gettext_noop("the part before the @ of %(text)s needs SMTPUTF8 (RFC 6531), which is not used"),
    gettext_noop("%(text)s is not an address that a command can hold"),
    gettext_noop("SparkPost's API takes no mail that is not UTF-8."),
)

#: Without a code.
REASONS: Final = (
    # States
    gettext_noop("On the suppression list: %(recipients)s"),
    gettext_noop("It was not sent before its expires_at."),
    gettext_noop("Given up after %(time)s: %(why)s"),
    gettext_noop("%(sentence)s. Next try at %(time)s UTC."),
    gettext_noop("Its row cannot be read: %(error)s"),
    gettext_noop("Its worker died while handing it over; whether the mail server took it is not known."),
    gettext_noop("%(error)s while it was composed"),
    gettext_noop("%(error)s while its context was read"),
    # The suppression list
    gettext_noop("One click in the mail program."),
    gettext_noop("By the link."),
    gettext_noop("Chosen on the unsubscribe page."),
    gettext_noop("Unsubscribed from everything on the unsubscribe page."),
    gettext_noop("By hand, in the admin"),
    gettext_noop("django-mailer: don't send"),
    # Batches of events
    gettext_noop("An event is nested too deeply to be read."),
    gettext_noop("Event %(key)s cannot be recorded: %(error)s."),
    gettext_noop("It cannot be read: %(error)s."),
    # Composing
    gettext_noop("The mail cannot be composed: %(error)s"),
    gettext_noop("Its content is not in the storage any more."),
    gettext_noop("The attachment %(name)s cannot be read from the storage within TIME_LIMIT."),
    gettext_noop("The attachment %(name)s cannot be read from the storage: %(error)s"),
    gettext_noop("The attachment %(name)s is not what was stored: its SHA-256 differs."),
    gettext_noop("The interceptor %(path)s failed: %(error)s"),
    gettext_noop("An interceptor has set an invalid header: %(error)s"),
    gettext_noop("Its template or the code behind it left a transaction of the database open."),
    # Contexts
    gettext_noop("The stored context is damaged: %(error)s"),
    gettext_noop("%(model)s pk=%(pk)s no longer exists."),
    gettext_noop("%(model)s cannot have the primary key %(pk)s."),
    gettext_noop("%(model)s cannot be read from %(database)s: %(error)s"),
    gettext_noop("There is no model %(model)s here."),
    gettext_noop("There is no database %(database)s here, which %(model)s is read from."),
    gettext_noop("%(member)s of the enum %(enum)s is not known here: %(cause)s"),
    gettext_noop("The tenant's schema %(schema)s no longer exists."),
    gettext_noop("The database %(database)s has no schemas of tenants here."),
    gettext_noop("The time zone %(timezone)s is not known here."),
    # Templates
    gettext_noop(
        "There is no template %(template)s here. %(looked_for)s A worker that is older than the file has to be "
        "restarted to see it."
    ),
    gettext_noop(
        "There is no subject here for the template %(template)s. %(looked_for)s A worker that is older than the file "
        "has to be restarted to see it."
    ),
    gettext_noop(
        "The template %(template)s needs %(other)s, which is not here. %(looked_for)s A worker that is older than the "
        "file has to be restarted to see it."
    ),
    gettext_noop("%(file)s renders to nothing with this context: the mail has no subject."),
    gettext_noop("%(file)s, line %(line)s: %(error)s"),
    gettext_noop("No plain text can be made from the HTML: %(error)s"),
    gettext_noop(
        "An unsubscribe link is for one recipient, and this mail has several: send each a separate mail, with "
        "send_bulk()."
    ),
    gettext_noop(
        "An unsubscribe link needs CONGRESSY_MAILER['SITE_URL'], and "
        'path("mailer/", include("congressy_mailer.urls")) in the URLs.'
    ),
    gettext_noop("The host's URLs cannot be loaded: %(error)s"),
    # Mail servers, and what happens in place of their replies
    gettext_noop("Nothing was said."),
    gettext_noop("No recipient."),
    gettext_noop("Not asked about yet: the server takes long for each recipient."),
    gettext_noop("The server closed the connection."),
    gettext_noop("The server said nothing in time."),
    gettext_noop("The server took nothing in time."),
    gettext_noop("The server did not come to the end of its reply in time."),
    gettext_noop("The server has begun to say something unsolicited."),
    gettext_noop("The server's reply makes no sense here: %(reply)s"),
    gettext_noop("Unsolicited reply: %(reply)s"),
    gettext_noop("Not a reply: %(text)s"),
    gettext_noop("Not a reply, for it has no end: %(text)s"),
    gettext_noop("The connection was lost: %(error)s"),
    gettext_noop("The connection was closed to take back a DATA."),
    gettext_noop("Interrupted: %(error)s"),
    gettext_noop("It cannot be written out: %(error)s"),
    # Providers
    gettext_noop("A gateway answered %(status)s"),
    gettext_noop("The answer %(status)s could not be read."),
    gettext_noop("SparkPost did not say for whom of this call it has taken the mail."),
    gettext_noop("SparkPost's HTTP API answered without a word of the mail."),
    gettext_noop("SparkPost's HTTP API cannot be reached at %(uri)s: %(error)s"),
    gettext_noop("CONGRESSY_MAILER['SPARKPOST_API_KEY'] is not set: SparkPost's HTTP API cannot be used."),
    gettext_noop("The mail backend reports that it sent nothing."),
    gettext_noop("The mail backend did not say what became of this recipient."),
    gettext_noop("The mail backend fails silently, and did not say whether it sent anything."),
    # Mail backends that cannot be used
    gettext_noop("The mail server cannot be reached: %(reply)s"),
    gettext_noop("The mail server cannot be used: %(reply)s"),
    gettext_noop("The mail server refuses this account: %(reply)s"),
    gettext_noop(
        "The mail server refuses the login: %(reply)s. Check EMAIL_HOST_USER and EMAIL_HOST_PASSWORD (for SparkPost: "
        'SMTP_Injection and an API key with "Send via SMTP").'
    ),
    gettext_noop(
        "The mail server refuses every recipient, and no login is configured: %(reply)s. Check EMAIL_HOST_USER and "
        "EMAIL_HOST_PASSWORD."
    ),
    gettext_noop("The mail server gave no answer to the last mail: %(error)s"),
    gettext_noop("The mail backend %(name)s cannot be made: %(cause)s"),
    gettext_noop("The mail backend %(name)s queues mail, and its OPTIONS name no using to deliver it over."),
    gettext_noop("The mail backend %(name)s queues mail for %(other)s, which queues it again."),
    gettext_noop(
        "The mail backend behind the queue gives its mail back to the queue: nothing is sent. Let the OPTIONS of "
        "congressy_mailer.backends.EmailBackend name a backend that sends."
    ),
    gettext_noop("CONGRESSY_MAILER['REDIRECT'] has no effect, so nothing is sent: %(refusal)s"),
)

#: Without a code, and shown by their number.
COUNTED: Final = {
    "It broke its worker %(times)s times: %(why)s": Counted(
        ngettext_lazy(
            "It broke its worker %(times)d time: %(why)s", "It broke its worker %(times)d times: %(why)s", "times"
        ),
        "times",
    ),
    "Its worker died %(times)s times while holding it: it may be the cause.": Counted(
        ngettext_lazy(
            "Its worker died %(times)d time while holding it: it may be the cause.",
            "Its worker died %(times)d times while holding it: it may be the cause.",
            "times",
        ),
        "times",
    ),
    "%(bounces)s soft bounces within %(days)s days": Counted(
        ngettext_lazy(
            "%(bounces)d soft bounce within %(days)s days", "%(bounces)d soft bounces within %(days)s days", "bounces"
        ),
        "bounces",
    ),
    "It was begun %(times)s times without progress.": Counted(
        ngettext_lazy(
            "It was begun %(times)d time without progress.", "It was begun %(times)d times without progress.", "times"
        ),
        "times",
    ),
    "%(why)s The same holds for %(count)s other events.": Counted(
        ngettext_lazy(
            "%(why)s The same holds for %(count)d other event.",
            "%(why)s The same holds for %(count)d other events.",
            "count",
        ),
        "count",
    ),
}

#: What reasons say as ``cause``.
CAUSES: Final = (
    gettext_noop("it is in no installed app"),
    gettext_noop("it is not an enum"),
    gettext_noop("it is not a dotted path"),
)

#: Where an exception comes from, whose words are not kept.
ERROR_PLACE: Final = gettext_noop("%(error)s in %(module)s, line %(line)s")

#: What exceptions say that are raised here, or whose words are ours.
ERROR_WORDS: Final = (
    gettext_noop("(it has no text)"),
    gettext_noop("no variable %(name)s"),
    gettext_noop("the backend has opened no connection, and has not said why"),
)
