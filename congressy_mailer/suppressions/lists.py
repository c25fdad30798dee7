"""The ids of ``LISTS``, checked."""

from __future__ import annotations

from difflib import get_close_matches

from ..conf import mailer_settings
from ..exceptions import InvalidOption


def check_list_id(list_id: str | None, transactional: bool) -> str:
    """One of the ``LISTS``; empty for none."""
    if not list_id:
        return ""
    known = mailer_settings().LISTS
    if list_id not in known:
        near = get_close_matches(str(list_id), known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(known) or 'none'}."
        raise InvalidOption(f"list_id={list_id!r} is not one of CONGRESSY_MAILER['LISTS'].{hint}")
    if transactional:
        raise InvalidOption(
            f"list_id={list_id!r} is for mail that a recipient may leave: it goes with transactional=False."
        )
    return list_id
