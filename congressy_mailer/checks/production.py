"""Checks of what a project leaves behind on its way to production: backends of development, samples in the settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.utils.translation import gettext as _

from ..conf import default_reply_to, default_sender, settings_if_valid
from .mail_backends import backend_class, mail_backends, smtp_servers
from .settings import Apps
from .web import secret_part

# Names that no mail can be sent from: RFC 2606 and RFC 6761, and what a Unix host calls itself.
_RESERVED = re.compile(
    r"(?:^|\.)(?:example\.(?:com|net|org)|example|invalid|test|localhost|localhost\.localdomain)$", re.IGNORECASE
)

#: Words that samples are made of, in English and Portuguese. A secret that is nothing but such words is none.
_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a abc account actual add admin aleatoria an and anyone api aqui as auth bar baz change changed changeit chave
        coloque com conta da de default do dummy email empty en enter env environment example exemplo fake fixme foo for
        form from generate generated get goes guess guessed guesses here host hosts in insert insira it key keys letmein
        login long longa mail me minha mudar mude must my na new no nobody none nova novo null o of one or para pass
        passphrase passwd password passwort placeholder pode por private put pw pwd qwerty random real redacted remove
        replace replaced sample secret secreta secreto segredo senha set smtp some something sparkhost sparkpost string
        sua super tbd test teste that the this to todo token trocar troque uma undefined unset update use user username
        usuario value with without word you your
        """,
    )
)
_LONGEST_WORD = max(map(len, _WORDS))
#: Longer ones are not samples.
_LONGEST_SAMPLE = 100
_TEXT = r"[\w\s.,:;'\"/…-]*"
# Brackets of documentation, and variables that no shell or template has replaced.
_IN_BRACKETS = re.compile(
    rf"<{_TEXT}>|\[{_TEXT}\]|\$?\{{+{_TEXT}\}}+|%{_TEXT}%|\$\({_TEXT}\)|\$[A-Z][A-Z0-9_]*|%\({_TEXT}\)s"
)
_DIGITS = "0123456789" * 2


@register("congressy_mailer", deploy=True)
def check_backends_send(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E020`` (``check --deploy``): a mail backend prints, stores or drops mail, and sends none."""
    from ..transports.destinations import fate_of_mail

    errors: list[CheckMessage] = []
    for backend in mail_backends():
        if fate := fate_of_mail(backend_class(backend.path)):
            errors.append(
                Error(
                    _("%(name)s is %(path)s: mail is %(fate)s and reaches nobody, although it counts as sent.")
                    % {"name": backend.name, "path": backend.path, "fate": _translated(fate)},
                    hint=_("Name a backend that sends, such as %(path)s.")
                    % {"path": "django.core.mail.backends.smtp.EmailBackend"},
                    id="congressy_mailer.E020",
                )
            )
    return errors


def _translated(fate: str) -> str:
    fates = {
        "only printed": _("only printed"),
        "only written to files": _("only written to files"),
        "only kept in memory": _("only kept in memory"),
        "thrown away": _("thrown away"),
    }
    return fates[fate]


@register("congressy_mailer", deploy=True)
def check_redirect(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.W011`` (``check --deploy``): ``REDIRECT`` is set: recipients do not get their mail."""
    conf = settings_if_valid()
    if conf is None or conf.REDIRECT is None:
        return []
    return [
        Warning(
            _("CONGRESSY_MAILER['REDIRECT'] is set: mail goes to its addresses instead of the recipients."),
            hint=_("Remove it from the production settings."),
            id="congressy_mailer.W011",
        )
    ]


@register("congressy_mailer", deploy=True)
def check_sample_secrets(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E021`` (``check --deploy``): a password or API key is empty or a placeholder."""
    return [
        Error(
            _("%(name)s is empty.") % {"name": name}
            if not str(value).strip()
            else _("%(name)s is a placeholder, not a secret.") % {"name": name},
            hint=_("Read the real value from the environment: secrets do not belong in the code."),
            id="congressy_mailer.E021",
        )
        for name, value in _secrets()
        if is_sample(value)
    ]


def _secrets() -> Iterator[tuple[str, str]]:
    """Each secret that is in use, with the name of its setting."""
    for server in smtp_servers():
        # A relay of one's own may ask for no login.
        if server.values["username"] or server.values["password"]:
            yield server.names["password"], server.values["password"] or ""
    for backend in mail_backends():
        if isinstance(backend.options, Mapping):
            for option, value in backend.options.items():
                if isinstance(value, str) and re.search(r"(?:api_?|secret_?)key|token", str(option), re.IGNORECASE):
                    yield f"{backend.options_name}[{option!r}]", value
    conf = settings_if_valid()
    if conf is None:
        return
    if conf.SPARKPOST_API_KEY is not None:
        yield "CONGRESSY_MAILER['SPARKPOST_API_KEY']", conf.SPARKPOST_API_KEY
    if conf.METRICS_TOKEN is not None:
        yield "CONGRESSY_MAILER['METRICS_TOKEN']", conf.METRICS_TOKEN
    for position, secret in enumerate(conf.WEBHOOK_SECRETS):
        yield f"CONGRESSY_MAILER['WEBHOOK_SECRETS'][{position}]", secret_part(secret)


def is_sample(secret: Any) -> bool:
    """Whether a secret is empty, or such as documentation has in its place: ``<API key>``, ``changeme``, ``xxx``."""
    text = str(secret or "").strip().strip("\"'")
    if len(text) > _LONGEST_SAMPLE:
        return False
    # Brackets, and nothing but one character: "…", "xxx", "0000-0000".
    if _IN_BRACKETS.fullmatch(text) or len(set(text.lower()) - set(" -_")) <= 1:
        return True
    letters = re.sub(r"[\W_]+", "", text).lower()
    return letters in _DIGITS if letters.isdigit() else _made_of_words(letters.rstrip(_DIGITS))


def _made_of_words(letters: str) -> bool:
    """Whether a text is words of samples, one after another without anything between them."""
    # Ends of words, from the left: as many steps as there are letters, however the words overlap.
    ends = {0}
    for end in range(1, len(letters) + 1):
        if any(start in ends and letters[start:end] in _WORDS for start in range(max(0, end - _LONGEST_WORD), end)):
            ends.add(end)
    return bool(letters) and len(letters) in ends


@register("congressy_mailer", deploy=True)
def check_real_sender(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E022`` (``check --deploy``): the sender or reply-to is at localhost or an example domain."""
    from ..mime.addresses import domain_of

    own = getattr(settings, "CONGRESSY_EMAIL_SENDER", None)
    addresses = [("CONGRESSY_EMAIL_SENDER" if own else "DEFAULT_FROM_EMAIL", default_sender())]
    if isinstance(getattr(settings, "CONGRESSY_REPLY_TO", None) or [], str | list | tuple):
        addresses += [("CONGRESSY_REPLY_TO", address) for address in default_reply_to()]
    return [
        Error(
            _(
                "%(name)s is an address at %(domain)s, which is reserved for examples and local use: providers refuse "
                "mail from it, and replies are lost."
            )
            % {"name": name, "domain": domain},
            hint=_('Set %(name)s = "mail@YOUR-DOMAIN", with a domain that you have verified at your provider.')
            % {"name": name},
            id="congressy_mailer.E022",
        )
        for name, address in addresses
        if isinstance(address, str) and _RESERVED.search(domain := domain_of(address).rstrip("."))
    ]
