"""Why a batch has left a recipient out, in the reader's language: the call's errors are stored in English.

Support reads them, and not the author of the call. Long ones are stored without their end.
"""

from __future__ import annotations

from ..models.batches import CUT
from .left_out_texts import CAUSES, ERRORS, PLACES, REWORDED
from .stored_texts import Found, Texts

#: What they say as their cause.
CALL_CAUSES = Texts(CAUSES)
#: What they are about.
CALL_PLACES: Texts = Texts(PLACES, values={"where": lambda where: CALL_PLACES.find(where)})


def find_begun_cause(stored: str) -> Found | None:
    """A cause whose end is missing, or which is cut right behind its end."""
    begun = CALL_CAUSES.find_beginning(stored)
    if begun is None and (whole := CALL_CAUSES.find(stored.removesuffix(CUT))) is not None:
        return Found(whole.length, whole.shown + CUT)
    return begun


#: Errors of the call, each with its cause.
CALL_ERRORS = Texts(
    REWORDED | dict(zip(ERRORS, ERRORS, strict=True)),
    values={"why": CALL_CAUSES.find, "where": CALL_PLACES.find},
    required={"why"},
    beginnings={"why": find_begun_cause},
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
