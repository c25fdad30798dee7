"""What the package says of recipients that it leaves out, for translation; :mod:`.left_out` finds it in what is stored.

A test reads the errors out of the source and finds what is missing here.
"""

from __future__ import annotations

from django.utils.translation import gettext_noop

#: Errors as they are stored, and as support reads them: without the argument that they name first.
REWORDED = {
    "%(where)s is empty: give an address such as ana@example.com.": gettext_noop(
        "The address is empty: give one such as ana@example.com."
    ),
    "%(where)s is not a mail address: %(text)s. A name that holds one of < > [ ] : ; @ \\ , must stand in quotation "
    "marks.": gettext_noop(
        "It is not a mail address: %(text)s. A name that holds one of < > [ ] : ; @ \\ , must stand in quotation marks."
    ),
    "%(where)s is not a mail address: %(text)s: %(why)s.": gettext_noop("It is not a mail address: %(text)s: %(why)s."),
    "%(where)s is not a mail address: %(text)s.": gettext_noop("It is not a mail address: %(text)s."),
    "%(where)s: the part before the @ of %(text)s must be ASCII.": gettext_noop(
        "The part before the @ of %(text)s must be ASCII."
    ),
    "%(where)s: %(text)s is longer than %(most)s characters (RFC 5321).": gettext_noop(
        "%(text)s is longer than %(most)s characters (RFC 5321)."
    ),
    "%(where)s: the name before %(text)s is longer than %(most)s characters.": gettext_noop(
        "The name before %(text)s is longer than %(most)s characters."
    ),
    "%(where)s: the name %(text)s cannot be decoded (RFC 2047).": gettext_noop(
        "The name %(text)s cannot be decoded (RFC 2047)."
    ),
    "%(where)s is longer than %(most)s characters: %(text)s.": gettext_noop(
        "It is longer than %(most)s characters: %(text)s."
    ),
    "%(where)s holds a line break or control character: %(text)s.": gettext_noop(
        "It holds a line break or control character: %(text)s."
    ),
}

#: Errors that are shown as they are stored.
ERRORS = (
    # Recipients
    gettext_noop("It is among the recipients twice, with nothing to tell the two apart."),
    gettext_noop("It is a %(type)s; give an address, (address, context) or a congressy_mailer.Recipient."),
    gettext_noop("%(where)s must be a list of addresses, not %(type)s."),
    gettext_noop("to, cc and bcc are all empty."),
    gettext_noop("key must be a text of at most 200 characters."),
    gettext_noop("It has a context, and the batch has no template."),
    gettext_noop("%(where)s must be text, not %(type)s: decode it first."),
    gettext_noop("language=%(value)s is not a language that Django knows, such as 'pt-br'."),
    gettext_noop("timezone=%(value)s is not a time zone such as 'America/Sao_Paulo'."),
    gettext_noop("about must be an instance of a model, not %(type)s."),
    gettext_noop("about: this %(model)s has not been saved."),
    gettext_noop("about: the names of %(model)s and its tenant's schema are too long together."),
    gettext_noop("about: the primary key of this %(model)s is longer than %(most)s characters."),
    # Templates, in a recipient's own language
    gettext_noop("There is no template %(template)s. %(why)s"),
    gettext_noop("The template %(template)s has no subject: pass subject=, or add a file for it. %(why)s"),
    gettext_noop("The template %(template)s cannot be read: %(error)s. Save it as UTF-8."),
    # Metadata
    gettext_noop("%(where)s must be a dict, not %(type)s."),
    gettext_noop("%(where)s is nested too deeply, or contains itself."),
    gettext_noop("%(where)s: %(key)s is the mailer's own key, by which events find their message."),
    gettext_noop(
        "%(where)s has %(size)s bytes as JSON, together with the mailer's own key; SparkPost's events repeat %(most)s."
    ),
    gettext_noop("%(where)s is %(value)s, which JSON has no number for."),
    gettext_noop("%(where)s has the key %(key)s: keys must be text."),
    gettext_noop("%(where)s is a %(type)s; SparkPost takes JSON: text, numbers, lists and objects."),
    gettext_noop("%(where)s holds a line break or control character at position %(position)s."),
    gettext_noop(
        "%(where)s takes %(size)s characters in the X-MSYS-API header, where no line may have more than %(line)s (RFC "
        "5322): at most %(most)s go."
    ),
    # Alternatives
    gettext_noop(
        "alternatives: one is not a pair of text and media type, or not one that may be. More is not said, because the "
        "mail is sensitive."
    ),
    gettext_noop("alternatives must be a list of (text, media type), not %(type)s."),
    gettext_noop("alternatives: %(size)s bytes together; the most is %(most)s."),
    gettext_noop("%(where)s must be (text, media type), such as (invitation, 'text/calendar')."),
    gettext_noop("%(where)s holds %(character)s at position %(position)s, which no mail can carry."),
    gettext_noop("%(where)s: %(type)s is not a media type."),
    gettext_noop("%(where)s: %(type)s is no type of text: give it as an attachment."),
    gettext_noop("%(where)s: give %(type)s as %(argument)s=."),
    gettext_noop("%(where)s: it is written in UTF-8, not in %(charset)s."),
    gettext_noop("%(where)s is empty."),
    # Attachments
    gettext_noop(
        "attachments: one cannot be read, or they are too large together. More is not said, because the mail is "
        "sensitive."
    ),
    gettext_noop("attachments must be a list, not %(type)s."),
    gettext_noop(
        "%(where)s (%(name)s) brings the attachments to %(size)s bytes; the most is %(most)s "
        "(CONGRESSY_MAILER['MAX_ATTACHMENT_BYTES'])."
    ),
    gettext_noop("%(where)s: it cannot be read: %(error)s."),
    gettext_noop("%(where)s is a %(type)s; give an Attachment, a path, an open file or (filename, content, mimetype)."),
    gettext_noop("%(where)s is a MIME part with parts of its own; attach each file by itself."),
    gettext_noop("%(where)s: the content is a %(type)s, not bytes, text or a file."),
    gettext_noop("%(where)s: the text cannot be written as %(charset)s: %(error)s."),
    gettext_noop("%(where)s: the file name is bytes: decode it first."),
    gettext_noop("%(where)s: the file name holds a line break or control character: %(text)s."),
    gettext_noop("%(where)s: the file name is longer than %(most)s characters."),
    gettext_noop("%(where)s: the description holds a line break or control character: %(text)s."),
    gettext_noop("%(where)s: the description is longer than %(most)s characters."),
    gettext_noop("%(where)s: the media type is longer than %(most)s characters."),
    gettext_noop("%(where)s: %(type)s is not the media type of a file."),
    gettext_noop(
        "%(where)s: %(type)s is not the media type of a file but of a mail's part, which must go as it is (RFC 2046 "
        "§5.2.1) and would not survive it. Attach a mail as %(other)s."
    ),
    gettext_noop("%(where)s: %(charset)s is not the name of a character set."),
    gettext_noop("%(where)s: %(text)s is not a content id (RFC 2392)."),
    gettext_noop("%(where)s: inline must be True or False, not %(value)s."),
    # Contexts
    gettext_noop("context must be a dict, not of type %(type)s."),
    gettext_noop("context has the key of type %(type)s: names of variables must be strings."),
    gettext_noop("context has the key %(key)s: names of variables must be strings."),
    gettext_noop("%(where)s contains itself: leave that reference out."),
    gettext_noop("%(where)s is a lazy value that cannot be evaluated: %(error)s"),
    gettext_noop(
        "%(where)s is nested too deeply: databases store %(most)s levels of JSON, of which a list takes one and a dict "
        "two. Pass only what the template shows."
    ),
    gettext_noop("%(where)s has a key of type %(type)s; it must be a string, number, date, time, UUID or enum member."),
    gettext_noop(
        "%(where)s has an element of type %(type)s; it must be a string, number, date, time, UUID or enum member."
    ),
    gettext_noop(
        "%(where)s holds the character %(character)s at position %(position)s, which databases do not store: remove it."
    ),
    gettext_noop("%(where)s is %(why)s."),
)

#: What errors say as ``why``.
CAUSES = (
    # Of an address
    gettext_noop("the domain has no ASCII form (IDNA 2008)"),
    gettext_noop("the domain must be labels of letters, digits and hyphens"),
    gettext_noop("the domain is no address literal such as [192.0.2.1] or [IPv6:2001:db8::1]"),
    gettext_noop("no domain ends in %(end)s, and an IP address stands in brackets: [192.0.2.1]"),
    gettext_noop("no domain ends in %(end)s"),
    gettext_noop(
        "the domain has no dot. Name %(domain)s in CONGRESSY_MAILER['INTRANET_HOSTS'] if it is a host of your own "
        "network"
    ),
    gettext_noop("the part before the @ is longer than %(most)s characters (RFC 5321)"),
    gettext_noop("the part before the @ looks like an encoded word (RFC 2047)"),
    gettext_noop("the part before the @ is not one that an address can have"),
    # Of a template
    gettext_noop("Looked for: %(names)s; in: %(folders)s."),
    gettext_noop(
        "Looked for: %(names)s; in: %(folders)s. DIRS of TEMPLATES is empty: put the files into an app, or name their "
        "directory there."
    ),
    gettext_noop("Looked for: %(names)s; in no directory."),
    gettext_noop(
        "Looked for: %(names)s; in no directory. DIRS of TEMPLATES is empty: put the files into an app, or name their "
        "directory there."
    ),
    # Of a value in a context
    gettext_noop("a QuerySet: pass list(queryset), or better only the rows and fields that the template shows"),
    gettext_noop("a manager of related objects: pass list(manager.all())"),
    gettext_noop("the Decimal %(value)s, which is no number to be shown"),
    gettext_noop("of type %(type)s: decode it to a string, or send it as an attachment"),
    gettext_noop("of type %(type)s, a named tuple: pass its _asdict()"),
    gettext_noop("of type %(type)s, a dataclass: pass dataclasses.asdict() of it"),
    gettext_noop("of type %(type)s, which can be read only once: pass list() of it"),
    gettext_noop("of type %(type)s, a stored file: pass its .url, or send it as an attachment"),
    gettext_noop("of type %(type)s, which can be called: call it, and pass the result"),
    gettext_noop(
        "of type %(type)s, which cannot be stored: pass the strings, numbers and dates of it that the template shows"
    ),
    gettext_noop("an instance of %(model)s that was deleted: the worker could not fetch it again"),
    gettext_noop("an instance of %(model)s that is not saved: save it first, since the worker fetches it again"),
    gettext_noop("an instance of %(model)s, which is in no installed app"),
    gettext_noop(
        "a combination of flags of %(enum)s, which has no name that a worker could find it by. Pass its .value, or a "
        "list of its members"
    ),
    gettext_noop(
        "a member of %(enum)s, which a worker could not find again: only enums of an installed app, at the top of a "
        "module or in a class there, can be stored. Pass its .value or .label"
    ),
)

#: What errors say as ``where``, beside the name of an argument.
PLACES = (
    gettext_noop("The subject"),
    gettext_noop("A key of context"),
    gettext_noop("The primary key of %(where)s"),
    gettext_noop("a key of %(where)s"),
    gettext_noop("an element of %(where)s"),
    gettext_noop("%(where)s: the key %(key)s"),
)
