"""People who use the site, each with a browser's cookies, through its own pages."""

from __future__ import annotations

import unicodedata
from http.cookiejar import CookieJar
from itertools import product
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, ProxyHandler, build_opener

_FIRST = (
    "Ana", "Bruno", "Camila", "Davi", "Eloá", "Fábio", "Giovanna", "Heitor", "Inês", "João", "Karina", "Luís",
    "Márcia", "Nélson", "Olívia", "Patrícia", "Quitéria", "Raul", "Sônia", "Tomás", "Úrsula", "Valéria", "Wagner",
    "Yasmin", "Zuleide",
)  # fmt: skip
_LAST = (
    "Almeida", "Brandão", "Conceição", "D'Ávila", "Esteves", "Figueirôa", "Gonçalves", "Holanda", "Itapuã",
    "Junqueira", "Lacerda", "Magalhães", "Nóbrega", "Oliveira", "Pádua", "Queirós", "Ribeirão", "Sant'Anna",
)  # fmt: skip

#: Refused twice, then taken; see ``testing.local_sparkpost.replies.AddressRules``.
DELAYED = "delay-2@participantes.example"
#: Always refused.
REFUSED = "refused@participantes.example"
#: Their mail is taken, and then bounces; is reported as spam; is opened, followed and unsubscribed from.
BOUNCING = "hard-bounce@participantes.example"
COMPLAINING = "complaint@participantes.example"
READER = "marta.leitora@participantes.example"
_SPECIAL = (DELAYED, REFUSED, BOUNCING, COMPLAINING, READER)
#: Everybody needs these and somebody else.
FEWEST = len(_SPECIAL) + 1


class PageError(RuntimeError):
    """The site answered with an error."""


def people(count: int) -> list[tuple[str, str, str]]:
    """So many people: name, address, form of payment. One in four pays by boleto.

    The addresses of the first of them decide what becomes of their mail: see ``testing.local_sparkpost.fates``.
    """
    names = product(range(1, count // (len(_FIRST) * len(_LAST)) + 2), _LAST, _FIRST)
    found = []
    for number, (round_, last, first) in zip(range(count), names, strict=False):
        address = f"{_plain(first)}.{_plain(last)}{'' if round_ == 1 else round_}@participantes.example"
        if number < len(_SPECIAL):
            address = _SPECIAL[number]
        found.append((f"{first} {last}", address, "boleto" if number % 4 == 3 else "pix"))
    return found


def _plain(name: str) -> str:
    letters = unicodedata.normalize("NFKD", name.lower())
    return "".join(letter for letter in letters if letter.isascii() and letter.isalpha())


class Visitor:
    """Somebody in front of the site."""

    def __init__(self, address: str) -> None:
        """Open a browser.

        Args:
            address: of the site, without a slash at its end.
        """
        self._address = address
        self._cookies = CookieJar()
        # Whatever proxy this machine uses, the site is on it.
        self._opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(self._cookies))

    def register(self, person: str, email: str, payment: str) -> None:
        """Fill in the form on the first page."""
        self.submit("/", person=person, email=email, payment=payment)

    def ask_for_new_password(self, email: str) -> None:
        """Fill in the form for a forgotten password."""
        self.submit("/senha/", email=email)

    def log_in(self, user: str, password: str) -> None:
        """Log in to the admin."""
        self.submit("/admin/login/?next=/admin/", username=user, password=password)

    def invite(self, speaker: str, email: str, talk: str) -> None:
        """Invite a speaker to the first event; only for who has logged in."""
        self.submit("/convites/", event="1", speaker=speaker, email=email, talk=talk)

    def submit(self, path: str, **fields: str) -> None:
        """Open a page with a form, fill it in and send it.

        Raises:
            PageError: the site did not take it.
        """
        self._open(path)
        token = next(cookie.value or "" for cookie in self._cookies if cookie.name == "csrftoken")
        self._open(path, {**fields, "csrfmiddlewaretoken": token})

    def _open(self, path: str, fields: dict[str, str] | None = None) -> None:
        try:
            self._opener.open(
                self._address + path, data=urlencode(fields).encode() if fields else None, timeout=60
            ).close()
        except HTTPError as error:
            error.close()
            raise PageError(f"The site answered {error.code} at {path}.") from None
        except OSError as error:
            raise PageError(f"The site did not answer at {path}: {error}.") from error
