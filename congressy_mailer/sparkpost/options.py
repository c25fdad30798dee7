"""The options of a mail for SparkPost, checked at the call (API reference, "SMTP API").

It limits campaign, tags and metadata, and refuses a mail over SMTP whose header is wrong. So whatever it would refuse
is refused here, before anything is stored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any
from uuid import UUID

from django.utils.functional import Promise

from ..exceptions import InvalidAddress, InvalidOption
from ..mime.addresses import bare_address, normalise_address
from ..mime.syntax import CONTROL, MAX_LINE
from . import MESSAGE_KEY

#: Bytes of ``campaign_id`` ("Error messages when using SMTP").
MAX_CAMPAIGN_BYTES = 64
#: Tags of a mail.
MAX_TAGS = 10
#: Bytes of ``metadata`` that open and click events repeat. Beyond them an event might not tell whose it is.
MAX_METADATA_BYTES = 1000
#: Addresses in ``cc``, ``bcc`` and ``archive`` together.
MAX_COPIES = 1000

# A text cannot be broken into lines (see headers), and something stands before and behind it.
_MAX_TEXT = MAX_LINE - 100
_NO_MESSAGE = UUID(int=0)

#: Options that name addresses to which SparkPost sends copies of its own.
COPIES = ("cc", "bcc", "archive")
_OPTIONS: Mapping[str, type] = {
    "skip_suppression": bool,
    "ip_pool": str,
    "inline_css": bool,
    "dkim_key": str,
    "sandbox": bool,
}
# Given as arguments of their own.
_ARGUMENTS = {"campaign_id": "campaign", "tags": "tags", "metadata": "metadata"}
_OPTION_ARGUMENTS = {
    "open_tracking": "track_opens",
    "click_tracking": "track_clicks",
    "transactional": "transactional",
}


def sparkpost_fields(
    *,
    campaign: str | None,
    tags: Sequence[str] | None,
    metadata: Mapping[str, Any] | None,
    track_opens: bool | None,
    track_clicks: bool | None,
    sparkpost: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The arguments that :func:`congressy_mailer.send_mail` explains, as fields of a
    :class:`congressy_mailer.models.Mail`.

    Raises:
        InvalidOption: SparkPost would not take one of them, or knows no such key.
        InvalidAddress: one of ``cc``, ``bcc`` or ``archive`` is not an address.
    """
    keys = _check_keys(sparkpost)
    for name, option, value in (
        ("track_opens", "open_tracking", track_opens),
        ("track_clicks", "click_tracking", track_clicks),
    ):
        if value is not None:
            if not isinstance(value, bool):
                raise InvalidOption(f"{name} must be True, False or None, not {value!r}.")
            keys["options"] = {option: value} | keys.get("options", {})
    return {
        "campaign": _check_campaign(campaign),
        "tags": _check_tags(tags),
        "metadata": check_metadata(metadata),
        "sparkpost": keys,
    }


def check_metadata(raw: Mapping[str, Any] | None, argument: str = "metadata") -> dict[str, Any]:
    """Metadata as it is stored and sent.

    Args:
        raw: what the caller gave.
        argument: how to call it in an error.

    Raises:
        InvalidOption: it is no object of JSON, has a key that is ours, or is too large together with our own key.
    """
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise InvalidOption(f"{argument} must be a dict, not {type(raw).__name__}.")
    try:
        metadata: dict[str, Any] = _as_json(raw, argument)
    except RecursionError:
        raise InvalidOption(f"{argument} is nested too deeply, or contains itself.") from None
    if MESSAGE_KEY in metadata:
        raise InvalidOption(f"{argument}: {MESSAGE_KEY!r} is the mailer's own key, by which events find their message.")
    size = len(json.dumps(with_message_key(metadata, _NO_MESSAGE), ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_METADATA_BYTES:
        raise InvalidOption(
            f"{argument} has {size:,} bytes as JSON, together with the mailer's own key; SparkPost's events repeat "
            f"{MAX_METADATA_BYTES:,}."
        )
    return metadata


def with_message_key(metadata: Mapping[str, Any], message: UUID) -> dict[str, Any]:
    """Metadata with the id of the message, which comes first: what is cut off would be cut off at the end."""
    return {MESSAGE_KEY: message.hex, **metadata}


def _as_json(value: Any, path: str) -> Any:
    """The value as JSON has it, text in it fit for a line of a mail."""
    if isinstance(value, str | Promise):
        return _check_text(value, path)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidOption(f"{path} is {value}, which JSON has no number for.")
        return value
    if isinstance(value, Mapping):
        found = {}
        for key, one in value.items():
            if not isinstance(key, str):
                raise InvalidOption(f"{path} has the key {key!r}: keys must be text.")
            found[_check_text(key, f"{path}: the key {key!r}")] = _as_json(one, f"{path}[{key!r}]")
        return found
    if isinstance(value, list | tuple):
        return [_as_json(one, f"{path}[{position}]") for position, one in enumerate(value)]
    raise InvalidOption(f"{path} is a {type(value).__name__}; SparkPost takes JSON: text, numbers, lists and objects.")


def _check_text(value: object, path: str) -> str:
    text = str(value)
    found = CONTROL.search(text)
    if found:
        raise InvalidOption(f"{path} holds a line break or control character at position {found.start()}.")
    # As headers write it: a space is an escape, too.
    written = len(json.dumps(text)) + 5 * text.count(" ")
    if written > _MAX_TEXT:
        raise InvalidOption(
            f"{path} takes {written:,} characters in the X-MSYS-API header, where no line may have more than "
            f"{MAX_LINE} (RFC 5322): at most {_MAX_TEXT} go."
        )
    return text


def _check_campaign(raw: str | None) -> str:
    if raw is None:
        return ""
    if not isinstance(raw, str | Promise):
        raise InvalidOption(f"campaign must be text, not {type(raw).__name__}.")
    campaign = _check_text(raw, "campaign")
    size = len(campaign.encode())
    if size > MAX_CAMPAIGN_BYTES:
        raise InvalidOption(f"campaign has {size} bytes in UTF-8; SparkPost takes {MAX_CAMPAIGN_BYTES}: {campaign!r}.")
    return campaign


def _check_tags(raw: Sequence[str] | None) -> list[str]:
    if raw is None:
        return []
    if isinstance(raw, str | bytes | Mapping) or not isinstance(raw, Iterable):
        raise InvalidOption(f"tags must be a list of texts, not {type(raw).__name__}.")
    tags = []
    for position, tag in enumerate(raw):
        if not isinstance(tag, str | Promise) or not str(tag):
            raise InvalidOption(f"tags[{position}] must be a text that is not empty, not {tag!r}.")
        tags.append(_check_text(tag, f"tags[{position}]"))
    if len(tags) > MAX_TAGS:
        raise InvalidOption(f"tags has {len(tags)} tags; SparkPost takes {MAX_TAGS} for each recipient.")
    return tags


def _check_keys(raw: Mapping[str, Any] | None) -> dict[str, Any]:
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise InvalidOption(f"sparkpost must be a dict, not {type(raw).__name__}.")
    keys: dict[str, Any] = {}
    for key, value in raw.items():
        if key in _ARGUMENTS:
            raise InvalidOption(f"sparkpost: give {key!r} as {_ARGUMENTS[key]}=.")
        if key == "options":
            keys["options"] = _check_options(value)
        elif key in COPIES:
            keys[key] = _check_copies(value, f"sparkpost[{key!r}]")
        else:
            raise InvalidOption(f"sparkpost has the key {key!r}, which SparkPost does not know.{_suggestion(key)}")
    count = sum(len(keys.get(key, ())) for key in COPIES)
    if count > MAX_COPIES:
        raise InvalidOption(f"sparkpost: cc, bcc and archive have {count:,} addresses; SparkPost takes {MAX_COPIES:,}.")
    return keys


def _check_options(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise InvalidOption(f"sparkpost['options'] must be a dict, not {type(raw).__name__}.")
    options = {}
    for key, value in raw.items():
        name = f"sparkpost['options'][{key!r}]"
        if key in _OPTION_ARGUMENTS:
            raise InvalidOption(f"sparkpost['options']: give {key!r} as {_OPTION_ARGUMENTS[key]}=.")
        kind = _OPTIONS.get(key)
        if kind is None:
            raise InvalidOption(f"{name} is no option that SparkPost knows over SMTP.{_suggestion(key)}")
        if not isinstance(value, kind):
            raise InvalidOption(f"{name} must be {'True or False' if kind is bool else 'text'}, not {value!r}.")
        options[key] = _as_json(value, name)
    return options


def _check_copies(raw: Any, path: str) -> list[dict[str, str]]:
    if isinstance(raw, str | bytes | Mapping) or not isinstance(raw, Iterable):
        raise InvalidOption(f"{path} must be a list of addresses, not {type(raw).__name__}.")
    copies = []
    for position, one in enumerate(raw):
        name = f"{path}[{position}]"
        if isinstance(one, Mapping):
            if set(one) - {"email", "name"} or "email" not in one:
                raise InvalidAddress(f"{name} must be an address, or a dict with email and name.")
            copy = {"email": bare_address(normalise_address(one["email"], name))}
            if one.get("name"):
                copy["name"] = _check_text(one["name"], f"{name}['name']")
        else:
            copy = {"email": bare_address(normalise_address(one, name))}
        copies.append(copy)
    return copies


def _suggestion(key: object) -> str:
    near = get_close_matches(str(key), [*COPIES, "options", *_OPTIONS], n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
