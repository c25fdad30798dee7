"""The command's options and help, as somebody types them."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from typing import Any

import pytest

from congressy_mailer.management.commands.mailer import Command

pytestmark = pytest.mark.usefixtures("english")


def parser() -> ArgumentParser:
    return Command().create_parser("manage.py", "mailer")


def subcommands(of: ArgumentParser, name: str = "") -> Iterator[tuple[str, ArgumentParser]]:
    """Each that can be called, with its parser."""
    below = [action for action in of._actions if isinstance(action, _SubParsersAction)]
    if not below:
        yield name, of
    for action in below:
        for part, choice in action.choices.items():
            yield from subcommands(choice, f"{name} {part}".strip())


NAMES = [name for name, _ in subcommands(parser())]
#: What each needs beside its name.
NEEDED = {
    "forget": ["ana@example.com"],
    "show": ["ana@example.com"],
    "send-test": ["ana@example.com"],
    "send-bulk": ["event/reminder", "people.csv"],
    "suppressions add": ["ana@example.com"],
    "suppressions remove": ["ana@example.com"],
    "suppressions import": ["old.csv"],
    "suppressions export": ["-"],
    "sparkpost verify-unsubscribe": ["ana@example.com"],
    "sparkpost webhook update": ["1"],
    "sparkpost webhook test": ["1"],
    "sparkpost webhook delete": ["1"],
}
USUAL: list[tuple[list[str], str, Any]] = [
    (["--settings", "project.settings"], "settings", "project.settings"),
    (["--settings=project.settings"], "settings", "project.settings"),
    (["--pythonpath", "/srv"], "pythonpath", "/srv"),
    (["--traceback"], "traceback", True),
    (["--no-color"], "no_color", True),
    (["--force-color"], "force_color", True),
    (["--verbosity", "0"], "verbosity", 0),
    (["-v", "2"], "verbosity", 2),
]


@pytest.mark.parametrize("name", NAMES)
def test_djangos_options_stand_before_and_after_a_subcommand(name: str) -> None:
    ours = parser()
    words = [*name.split(), *NEEDED.get(name, [])]
    for given, option, value in USUAL:
        assert getattr(ours.parse_args([*given, *words]), option) == value
        assert getattr(ours.parse_args([*words, *given]), option) == value
        assert getattr(ours.parse_args([*name.split(), *given, *NEEDED.get(name, [])]), option) == value
    assert ours.parse_args(words).verbosity == 1
    assert ours.parse_args(["-v", "3", *words]).verbosity == 3


@pytest.mark.parametrize("name", NAMES)
def test_help_says_what_a_subcommand_is_for_and_shows_an_example(name: str) -> None:
    ours = parser()
    found = dict(subcommands(ours))[name]
    assert found.description
    text = " ".join(found.format_help().split())
    assert f"Example: python manage.py mailer {name}" in text
    # Each example can be typed.
    for example in (found.epilog or "").removeprefix("Example: ").split("; "):
        ours.parse_args(shlex.split(example)[3:])
