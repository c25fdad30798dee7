"""Why a batch has left a recipient out, in the reader's language: the call's errors are stored in English.

Support reads them, and not the author of the call. Long ones are stored without their end.
"""

from __future__ import annotations

from ..models.batches import CUT
from .left_out_texts import CAUSES, ERRORS, PLACES, REWORDED
from .stored_texts import Found, Texts

_CAUSES = Texts(CAUSES)
_PLACES: Texts = Texts(PLACES, values={"where": lambda where: _PLACES.find(where)})


def _find_begun_cause(stored: str) -> Found | None:
    begun = _CAUSES.find_beginning(stored)
    if begun is None and (whole := _CAUSES.find(stored.removesuffix(CUT))) is not None:
        return Found(whole.length, whole.shown + CUT)
    return begun


#: Errors of the call, each with its cause.
CALL_ERRORS = Texts(
    REWORDED | dict(zip(ERRORS, ERRORS, strict=True)),
    values={"why": _CAUSES.find, "where": _PLACES.find},
    required={"why"},
    beginnings={"why": _find_begun_cause},
)


def shown_problem(reason: str) -> str:
    """A reason out of a batch's ``problems`` in the language in force; as it is stored where that is not known.

    Args:
        reason: as :func:`congressy_mailer.send_bulk` has stored it.
    """
    found = CALL_ERRORS.find(reason)
    if found is None and reason.endswith(CUT):
        found = CALL_ERRORS.find_beginning(reason)
    return reason if found is None else found.shown
