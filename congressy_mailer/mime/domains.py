"""Domains of addresses in one spelling: labels in ASCII and lower case, or an address literal."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from ..conf import settings_if_valid
from .syntax import MAX_ADDRESS

# Labels of letters, digits and hyphens (RFC 1035 §2.3.1), and an address literal (RFC 5321 §4.1.3).
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
LITERAL = r"\[(?:[0-9.]++|[Ii][Pp][Vv]6:[0-9A-Fa-f:.]++)\]"

_IS_DOMAIN = re.compile(DOMAIN)
_IPV4 = re.compile(r"\[([0-9.]+)\]")
_IPV6 = re.compile(r"\[(?:[Ii][Pp][Vv]6:)?([0-9A-Fa-f:.]+)\]")


def normal_domain(given: str) -> str:
    """The domain in ASCII and lower case, or an address literal.

    Raises:
        ValueError: it is none; the message says why.
    """
    if given.startswith("["):
        return _literal(given)
    domain = given if given.isascii() else _ascii_domain(given)
    if not _IS_DOMAIN.fullmatch(domain):
        raise ValueError("the domain must be labels of letters, digits and hyphens")
    domain = domain.lower()
    _, dot, last = domain.rpartition(".")
    if not dot:
        if domain != "localhost" and not _is_intranet_host(domain):
            raise ValueError(
                f"the domain has no dot. Name {domain!r} in CONGRESSY_MAILER['INTRANET_HOSTS'] if it is a host of "
                "your own network"
            )
    elif last.isdigit():
        raise ValueError(f"no domain ends in {last!r}, and an IP address stands in brackets: [192.0.2.1]")
    elif len(last) == 1:
        raise ValueError(f"no domain ends in {last!r}")
    return domain


def _ascii_domain(given: str) -> str:
    """An international domain in its ASCII form (RFC 5891), after the mapping of UTS 46.

    Raises:
        ValueError: it has none.
    """
    # Most addresses need none of its tables.
    import idna

    # A label takes more octets in ASCII than it has characters. What is longer costs time for nothing.
    if len(given) <= MAX_ADDRESS:
        try:
            labels = idna.uts46_remap(given, std3_rules=True).split(".")
            if max(map(len, labels)) < 64:
                return ".".join(label if label.isascii() else idna.alabel(label).decode() for label in labels)
        except ValueError:
            pass
    raise ValueError("the domain has no ASCII form (IDNA 2008)")


def _is_intranet_host(host: str) -> bool:
    conf = settings_if_valid()
    hosts = conf.INTRANET_HOSTS if conf is not None else ()
    return "*" in hosts or any(host == one.lower() for one in hosts)


def _literal(given: str) -> str:
    """An address literal in one spelling (RFC 5321 §4.1.3, RFC 5952).

    Django's ``EmailField`` knows IPv6 only without its tag, which is added.

    Raises:
        ValueError: it is none.
    """
    try:
        if found := _IPV4.fullmatch(given):
            return f"[{IPv4Address(found[1])}]"
        if found := _IPV6.fullmatch(given):
            return f"[IPv6:{_ipv6(found[1])}]"
    except ValueError:
        pass
    raise ValueError("the domain is no address literal such as [192.0.2.1] or [IPv6:2001:db8::1]")


def _ipv6(given: str) -> str:
    # Versions of Python differ in what they write for those that hold an IPv4 address.
    digits = IPv6Address(given).packed.hex()
    words = [f"{int(digits[place : place + 4], 16):x}" for place in range(0, 32, 4)]
    zeros = max(re.findall(r"(?<![0-9a-f])0(?::0)+(?![0-9a-f])", ":".join(words)), key=len, default="")
    if not zeros:
        return ":".join(words)
    before, _, after = f":{':'.join(words)}:".partition(f":{zeros}:")
    return f"{before[1:]}::{after[:-1]}"
