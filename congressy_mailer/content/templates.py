"""Templates by name: which files belong to a name, and what they render to.

A template ``subscription/paid`` is up to three files, in any directory that Django's template engines look into:
``subscription/paid.html``, ``subscription/paid.txt`` and ``subscription/paid_subject.txt``. Each may have variants for
languages, ``subscription/paid.pt-br.html``, ``.pt-br.txt`` and ``.pt-br_subject.txt``: for ``pt-br``, the file for
``pt-br`` wins over the one for ``pt``, and that over the one without a language, for each of the three on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cache
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

from django.db import Error
from django.template import Context, TemplateDoesNotExist, VariableDoesNotExist, engines
from django.template.backends.django import Template as DjangoTemplate
from django.template.base import Node
from django.template.loader import get_template
from django.utils import timezone as django_timezone
from django.utils import translation

from ..conf.tenants import current_schema, in_schema
from ..exceptions import ContentError, ContentNotReady, InvalidHeader, TemplateNotFound, TemplateUnreadable
from ..mime.header_values import check_subject
from ..mime.syntax import BOM
from ..mime.writer import MailContent
from ..replies import error_text
from .html import text_from_html
from .placeholders import with_placeholders
from .references import AT_LIMITS
from .tenants import Variables

try:
    from jinja2 import TemplateNotFound as Jinja2TemplateNotFound
except ImportError:  # Jinja2 is the host's choice.
    Jinja2TemplateNotFound = TemplateDoesNotExist  # type: ignore[assignment,misc]

# Django's cached loader remembers which files a process has not found.
_RESTART = "A worker that is older than the file has to be restarted to see it."
#: Variable that tells where the recipient leaves: called by Django's engine, to be called in Jinja2's.
UNSUBSCRIBE_URL = "mailer_unsubscribe_url"

_HTML, _TEXT, _SUBJECT = ".html", ".txt", "_subject.txt"
#: Characters of another library's error that are kept: enough to understand it, too few to repeat a mail's content.
_MAX_ERROR_LENGTH = 200
#: What a look for a template's part has found, by template, part, language and tenant's schema; ``None``: no file.
FoundParts: TypeAlias = dict[tuple[str, str, str, str], Any]
# Not the template's fault: a database that did not answer a query, or a process at its limits.
_NOT_TEMPLATE_ERRORS = (Error, *AT_LIMITS)


def check(template: str, *, subject_given: bool, language: str) -> None:
    """Make sure, when the mail is stored, that there is something to render.

    Args:
        template: name without extension, relative to the directories of templates.
        subject_given: whether the caller gave a subject, so that none has to be rendered.
        language: language that the mail will be rendered in; empty for none.

    Raises:
        TemplateNotFound: the name is not one, or no file of that name exists; it tells every file looked for.
        TemplateUnreadable: a file exists, but is not in the encoding that templates are read in.
        django.template.TemplateSyntaxError: a file exists, but cannot be compiled.
    """
    _check_name(template)
    html, text = _candidates(template, _HTML, language), _candidates(template, _TEXT, language)
    if _find(html + text) is None:
        raise TemplateNotFound(f"There is no template {template!r}. {_looked_for(html + text)}")
    subject = _candidates(template, _SUBJECT, language)
    if not subject_given and _find(subject) is None:
        raise TemplateNotFound(
            f"The template {template!r} has no subject: pass subject=, or add a file for it. {_looked_for(subject)}"
        )


def render(
    template: str,
    context: Mapping[str, Any],
    *,
    subject: str,
    language: str,
    timezone: str,
    unsubscribe_url: Callable[[], str] | None = None,
    found: FoundParts | None = None,
) -> MailContent:
    """Render a mail in its language, its time zone and the schema of its tenant.

    Values are escaped in HTML and nowhere else: text and subject say ``Ana & Zé``, in Django's engine as in Jinja2.

    Args:
        template: name without extension.
        context: its variables.
        subject: the caller's subject, which wins over the template's; empty for the template's.
        language: empty for untranslated text.
        timezone: name such as ``America/Sao_Paulo``; empty for the project's ``TIME_ZONE``.
        unsubscribe_url: tells where the recipient leaves, for a template that asks.
        found: what was found for the mails before; added to. Give one to mails that are rendered one after the other.

    Returns:
        Subject, text (made from the HTML where there is no ``.txt``) and HTML.

    Raises:
        ContentError: a template is wrong, or fails with this context.
        ContentNotReady: a template or time zone is missing here, which a newer deployment may have.
    """
    found = {} if found is None else found
    with ExitStack() as settings:
        settings.enter_context(_schema_of(context))
        context = {UNSUBSCRIBE_URL: unsubscribe_url, **context}
        settings.enter_context(translation.override(language or None))
        settings.enter_context(django_timezone.override(_load_zone(timezone)))
        html = _render_part(template, _HTML, context, language, found)
        text = _render_part(template, _TEXT, context, language, found)
        if html is None and text is None:
            names = _candidates(template, _HTML, language) + _candidates(template, _TEXT, language)
            raise ContentNotReady(f"There is no template {template!r} here. {_looked_for(names)} {_RESTART}")
        subject = subject or _render_subject(template, context, language, found)
    return build_content(subject, text, html or "")


def render_subject(
    template: str,
    context: Mapping[str, Any],
    *,
    language: str,
    timezone: str,
    found: FoundParts | None = None,
    placeholders: bool = False,
) -> str:
    """Render the subject of a mail alone, in its language and time zone.

    Args:
        template: name without extension.
        context: its variables.
        language: empty for untranslated text.
        timezone: empty for the project's ``TIME_ZONE``.
        found: as for :func:`render`; for calls with the same ``placeholders`` alone.
        placeholders: show ``…`` for each variable that the context lacks.

    Raises:
        ContentError: the template is wrong, or fails with this context.
        ContentNotReady: the template, its subject or the time zone is missing here.
    """
    with _schema_of(context), translation.override(language or None), django_timezone.override(_load_zone(timezone)):
        context = {UNSUBSCRIBE_URL: None, **context}
        return _render_subject(template, context, language, {} if found is None else found, placeholders)


def _schema_of(context: Mapping[str, Any]) -> AbstractContextManager[None]:
    """The schema in which relations of the context's rows are followed, and a tenant's own templates are found."""
    return in_schema(context.schema) if isinstance(context, Variables) else nullcontext()


def _render_subject(
    template: str, context: Mapping[str, Any], language: str, found: FoundParts, placeholders: bool = False
) -> str:
    rendered = _render_part(template, _SUBJECT, context, language, found, placeholders)
    if rendered is None:
        names = _candidates(template, _SUBJECT, language)
        raise ContentNotReady(
            f"There is no subject here for the template {template!r}. {_looked_for(names)} {_RESTART}"
        )
    # Line ends would end the header; a template's file has at least one.
    return _checked_subject(template, " ".join(rendered.split()))


def build_content(subject: str, text: str | None, html: str) -> MailContent:
    """The content of a mail that needs no rendering; its text is made from its HTML where it has none.

    Raises:
        ContentError: no text can be made from the HTML.
    """
    # Editors put a byte order mark in front of a file, also of one that is included in another.
    text, html = (text or "").replace(BOM, ""), html.removeprefix(BOM)
    # A .txt of nothing but tags and blanks is no text.
    if html and not text.strip():
        try:
            text = text_from_html(html)
        except _NOT_TEMPLATE_ERRORS:
            raise
        except Exception as error:
            raise ContentError(f"No plain text can be made from the HTML: {_describe_error(error)}") from error
    return MailContent(subject, text, html)


def _checked_subject(template: str, rendered: str) -> str:
    try:
        subject = check_subject(rendered)
    except InvalidHeader as error:
        raise ContentError(f"{template}{_SUBJECT}: {error}") from None
    if not subject:
        raise ContentError(f"{template}{_SUBJECT} renders to nothing with this context: the mail has no subject.")
    return subject


def _check_name(template: str) -> None:
    problem = ""
    if not isinstance(template, str) or not template or template != template.strip():
        problem = "it must be a text such as 'subscription/paid'"
    elif len(template) > 255 or not template.isprintable():
        problem = "it must be at most 255 printable characters"
    elif template.endswith((".html", ".htm", ".txt")):
        problem = f"leave the extension out: {template.rpartition('.')[0].removesuffix('_subject')!r}"
    elif "\\" in template or not all(part.strip(".") for part in template.split("/")):
        problem = "it must be relative to a directory of templates, without '..' and backslashes"
    if problem:
        raise TemplateNotFound(f"template={template!r} is not a template's name: {problem}.")


def _candidates(template: str, part: str, language: str) -> list[str]:
    """Files that may be this part of the template, best first."""
    names = []
    code = language.lower().replace("_", "-")
    while code:
        names.append(f"{template}.{code}{part}")
        code = code.rpartition("-")[0]
    return [*names, f"{template}{part}"]


def has_variant(template: str, language: str) -> bool:
    """Whether a template has a file of its own for this language, or for a more general form of it."""
    parts = (_HTML, _TEXT)
    return _find([name for part in parts for name in _candidates(template, part, language)[:-1]]) is not None


def _looked_for(names: list[str]) -> str:
    """Which files were looked for and where, for people."""
    folders = dict.fromkeys(str(folder) for engine in engines.all() for folder in getattr(engine, "template_dirs", ()))
    where = f"in: {', '.join(folders)}." if folders else "in no directory."
    if not any(getattr(engine, "dirs", ()) for engine in engines.all()):
        where += " DIRS of TEMPLATES is empty: put the files into an app, or name their directory there."
    return f"Looked for: {', '.join(names)}; {where}"


def _find(names: list[str]) -> Any:
    """The first of these templates that exists. Django's cached loader compiles it once for each process."""
    for name in names:
        try:
            return get_template(name)
        except TemplateDoesNotExist:
            continue
        except UnicodeDecodeError as error:
            raise TemplateUnreadable(f"The template {name!r} cannot be read: {error}. Save it as UTF-8.") from error
    return None


def _render_part(
    template: str,
    part: str,
    context: Mapping[str, Any],
    language: str,
    found: FoundParts,
    placeholders: bool = False,
) -> str | None:
    try:
        # A loader of django-tenants finds a file of the tenant's own.
        key = (template, part, language, current_schema())
        if key not in found:
            compiled = _find(_candidates(template, part, language))
            found[key] = with_placeholders(compiled) if placeholders and compiled is not None else compiled
        compiled = found[key]
        if compiled is None:
            return None
        return _render_html(compiled, context) if part == _HTML else _render_text(compiled, context)
    except (*_NOT_TEMPLATE_ERRORS, ContentError, ContentNotReady):
        raise
    except (TemplateDoesNotExist, Jinja2TemplateNotFound) as error:
        # One that is extended or included.
        raise ContentNotReady(
            f"The template {template}{part} needs {str(error)!r}, which is not here. "
            f"{_looked_for([str(error)])} {_RESTART}"
        ) from error
    except Exception as error:
        raise ContentError(f"{_error_location(error) or f'{template}{part}'}: {_describe_error(error)}") from error


def _render_html(compiled: Any, context: Mapping[str, Any]) -> str:
    return str(compiled.render(dict(context)))


def _render_text(compiled: Any, context: Mapping[str, Any]) -> str:
    if isinstance(compiled, DjangoTemplate):
        return str(compiled.template.render(Context(dict(context), autoescape=False)))
    environment = getattr(compiled.backend, "env", None)
    # A Jinja2 environment that decides by a template's name is left to decide.
    if getattr(environment, "autoescape", None) is True:
        return str(_without_autoescape(environment).get_template(compiled.template.name).render(dict(context)))
    return str(compiled.render(dict(context)))


@cache
def _without_autoescape(environment: Any) -> Any:
    """The same Jinja2 environment for plain text. It has a cache of its own, since escaping is compiled in."""
    return environment.overlay(autoescape=False, bytecode_cache=None)


def _load_zone(timezone: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(timezone) if timezone else None
    except (LookupError, ValueError, OSError):
        raise ContentNotReady(f"The time zone {timezone!r} is not known here.") from None


def _error_location(error: Exception) -> str:
    """File and line of the innermost template that failed, where Django's engine can tell."""
    location = ""
    traceback = error.__traceback__
    while traceback is not None:
        node = traceback.tb_frame.f_locals.get("self")
        if traceback.tb_frame.f_code.co_name == "render_annotated" and isinstance(node, Node) and node.token:
            location = f"{str(node.origin.template_name)}, line {node.token.lineno}"
        traceback = traceback.tb_next
    return location


def _describe_error(error: Exception) -> str:
    if isinstance(error, VariableDoesNotExist):
        # Django's own text for a variable that is missing repeats the whole context.
        return f"VariableDoesNotExist: no variable {error.params[0]!r}"
    text = error_text(error)
    longest = len(type(error).__name__) + len(": ") + _MAX_ERROR_LENGTH
    return text if len(text) <= longest else f"{text[:longest]}…"
