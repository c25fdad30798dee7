"""What errors say of a mail that cannot be written, for translation; :mod:`.reasons` finds it in what is stored.

A test reads the errors out of the source and finds what is missing here.
"""

from __future__ import annotations

from django.utils.translation import gettext_noop

#: Errors as they are stored, and as they are shown.
REWRITTEN = {
    # A percent sign would begin a place.
    "%(name)s must be ASCII between < and >: write other characters of a URL as %C3%A7": gettext_noop(
        "%(name)s must be ASCII between < and >: write other characters of a URL as %%C3%%A7"
    ),
}

#: Errors that are shown as they are stored.
MAIL_ERRORS = (
    # Headers
    gettext_noop("headers must be a dict of values by name, not %(type)s."),
    gettext_noop("headers: %(name)s is not the name of a mail header."),
    gettext_noop("headers: give %(name)s as %(argument)s=, not as a header."),
    gettext_noop("headers: %(name)s follows from the content and cannot be set."),
    gettext_noop("headers: %(name)s is written by the last server (RFC 5321 §4.4); give from_email=."),
    gettext_noop("headers: %(name)s is given twice."),
    gettext_noop("%(where)s cannot be written: %(wrong)s."),
    gettext_noop("%(where)s must not hold line breaks or control characters: %(text)s."),
    gettext_noop(
        "%(where)s has a word that is too long for a line of a mail, which may have %(most)s characters (RFC 5322)."
    ),
    gettext_noop("%(where)s must look like <unique@example.com>: %(text)s."),
    gettext_noop("%(where)s must be one address: %(text)s."),
    gettext_noop("%(where)s has a quotation mark or parenthesis that is not closed: %(text)s."),
    gettext_noop(
        "%(where)s must be a datetime, or a date such as 'Mon, 02 Jan 2006 15:04:05 +0000' (RFC 5322): %(text)s."
    ),
    gettext_noop("%(where)s is beyond the calendar: %(value)s."),
    gettext_noop("%(where)s: no mail is older than %(year)s (RFC 5322): %(value)s."),
    # Fields, as they are written
    gettext_noop("%(name)s is not the name of a header"),
    gettext_noop("%(name)s is not a date such as 'Mon, 02 Jan 2006 15:04:05 +0000'"),
    gettext_noop("%(name)s is not an identifier such as <unique@example.com>"),
    gettext_noop("%(name)s holds what looks like an encoded word (RFC 2047), which some readers would decode"),
    gettext_noop("%(name)s must be ASCII: programs read it, and decode nothing in it"),
    gettext_noop("%(name)s has a bracket or quotation mark that is not closed"),
    gettext_noop("%(name)s has what looks like an encoded word (RFC 2047) between < and >"),
    gettext_noop("%(name)s has control characters"),
    gettext_noop("%(name)s has a word that is too long for a line"),
    gettext_noop("a field without an address"),
    gettext_noop("text that has control characters"),
    # Files
    gettext_noop("a file name that has control characters"),
    gettext_noop("%(id)s is not a content id"),
    gettext_noop("%(type)s is not a media type"),
    gettext_noop("%(type)s may not be written in Base64"),
    # The mail as a whole
    gettext_noop("the head of the mail is not the fields that were asked for"),
    gettext_noop("the head of the mail has a field twice"),
    gettext_noop("the head of the mail has a field without a name"),
    gettext_noop("the head of the mail has a character that is not printable ASCII"),
    gettext_noop("the head of the mail has a line that is too long, or empty"),
    gettext_noop("a part of the mail has a character that is not ASCII, or NUL"),
    gettext_noop("a part of the mail has a line that is too long"),
    gettext_noop("a part of the mail has a line break that is not CR LF"),
)
