"""Addresses that were erased and are not to be written to all the same: kept as a hash."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from django.db.backends.base.base import BaseDatabaseWrapper

#: What stands before the hash in place of an address. No address begins so, since it has no @.
PREFIX = "erased:"

_SALT = "congressy_mailer "

# SQLite has the function from Django.
_HASHED = {
    "postgresql": "'{prefix}' || encode(sha256(convert_to('{salt}' || {column}, 'UTF8')), 'hex')",
    "mysql": "CONCAT('{prefix}', SHA2(CONCAT('{salt}', CONVERT({column} USING utf8mb4)), 256))",
    "sqlite": "'{prefix}' || SHA256('{salt}' || {column})",
}


def hashed(address: str) -> str:
    """What stands in place of an address that was erased.

    The hash has no secret, whose change would let mail leave again. So who has the table can test a guessed address.

    Args:
        address: in the form in which addresses are compared.
    """
    return PREFIX + sha256(f"{_SALT}{address}".encode()).hexdigest()


def hashed_in(connection: BaseDatabaseWrapper, column: str) -> str:
    """An SQL expression for :func:`hashed` of a column.

    Args:
        connection: of the database that the expression is for.
        column: its quoted name; it has addresses in the form in which they are compared.
    """
    return _HASHED[connection.vendor].format(prefix=PREFIX, salt=_SALT, column=column)


def by_stored_form(addresses: Iterable[str]) -> dict[str, str]:
    """Each of these addresses by the forms in which the list may have it: itself and its hash."""
    found: dict[str, str] = {}
    for address in addresses:
        found[address] = found[hashed(address)] = address
    return found
