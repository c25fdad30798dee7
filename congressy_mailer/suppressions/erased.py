"""Addresses that were erased and are not to be written to all the same: kept as a hash."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

#: What stands before the hash in place of an address. No address begins so, since it has no @.
PREFIX = "erased:"


def hashed(address: str) -> str:
    """What stands in place of an address that was erased.

    Without a secret, so that no change of one lets mail leave again: whoever has the table can test a guess.

    Args:
        address: in the form in which addresses are compared.
    """
    return PREFIX + sha256(f"congressy_mailer {address}".encode()).hexdigest()


def by_stored_form(addresses: Iterable[str]) -> dict[str, str]:
    """Each of these addresses by the forms in which the list may have it: itself and its hash."""
    found: dict[str, str] = {}
    for address in addresses:
        found[address] = found[hashed(address)] = address
    return found
