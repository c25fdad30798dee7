"""What all subcommands of ``manage.py mailer`` have in common: Django's usual options, a description, an example."""

from __future__ import annotations

from argparse import SUPPRESS, Action, ArgumentParser, _SubParsersAction
from collections.abc import Iterator, Mapping, Sequence
from copy import copy

from django.utils.translation import gettext as _

#: Examples by subcommand, as typed after ``manage.py mailer``.
_EXAMPLES: Mapping[str, Sequence[str]] = {
    "health": ["health", "health --json --settings project.settings"],
    "status": ["status", "status --watch"],
    "doctor": ["doctor", "doctor smtp broker"],
    "show": ["show ana@example.com", "show 0193c2a0-7d2f-7a3e-9a57-0c6f2d3b1e42"],
    "retry": ["retry 0193c2a0-7d2f-7a3e-9a57-0c6f2d3b1e42", "retry --state failed --since 2026-11-24T10:00"],
    "cancel": ["cancel 0193c2a0-7d2f-7a3e-9a57-0c6f2d3b1e42", "cancel --batch 0193c2a0-7d2f-7a3e-9a57-0c6f2d3b1e42"],
    "release": ["release 0193c2a0-7d2f-7a3e-9a57-0c6f2d3b1e42", "release --state held"],
    "send-test": ["send-test me@congressy.com", "send-test me@congressy.com --using sparkpost"],
    "forget": ["forget ana@example.com --export", "forget ana@example.com"],
    "purge": ["purge"],
    "pause": ['pause --reason "wrong link in the newsletter"', "pause --campaign carnaval"],
    "resume": ["resume", "resume --campaign carnaval"],
    "installation": ["installation", "installation --new"],
    "send-bulk": [
        'send-bulk event/reminder people.csv --subject "See you tomorrow" --dry-run',
        "send-bulk newsletter subscribers.csv --list news --wait",
    ],
    "import post-office": ["import post-office --templates templates --dry-run", "import post-office"],
    "import django-mailer": ["import django-mailer --dry-run", "import django-mailer"],
    "sparkpost webhook create": ["sparkpost webhook create https://www.congressy.com/mailer/sparkpost/events/"],
    "sparkpost webhook list": ["sparkpost webhook list"],
    "sparkpost webhook update": ["sparkpost webhook update 5b2b0ae4 --url https://www.congressy.com/mailer/events/"],
    "sparkpost webhook test": ["sparkpost webhook test 5b2b0ae4"],
    "sparkpost webhook delete": ["sparkpost webhook delete 5b2b0ae4"],
    "sparkpost verify-unsubscribe": [
        "sparkpost verify-unsubscribe me@congressy.com --list news",
        "sparkpost verify-unsubscribe --received mail.eml",
    ],
    "suppressions list": ["suppressions list", "suppressions list ana@example.com"],
    "suppressions add": ['suppressions add ana@example.com --scope non_transactional --reason "asked by phone"'],
    "suppressions remove": ["suppressions remove ana@example.com"],
    "suppressions import": ["suppressions import old-system.csv --scope non_transactional"],
    "suppressions export": ["suppressions export suppressions.csv"],
    "suppressions sync": ["suppressions sync --full"],
}


def complete(parser: ArgumentParser) -> None:
    """Give each subcommand the options that Django gives to the command, and those that are called a description.

    Django's options may so stand before or after the name of the subcommand, as monitoring and cron lines have them.

    Args:
        parser: of the command, with all its subcommands.
    """
    usual = [action for action in parser._actions if action.option_strings and action.dest != "help"]
    for name, help_text, subparser in _subparsers(parser, ""):
        subparser.description = subparser.description or help_text
        if examples := _EXAMPLES.get(name):
            subparser.epilog = _("Example: %(command)s") % {
                "command": "; ".join(f"python manage.py mailer {example}" for example in examples)
            }
        taken = set(subparser._option_string_actions)
        for action in usual:
            if not taken & set(action.option_strings):
                subparser._add_action(_without_default(action))


def _subparsers(parser: ArgumentParser, prefix: str) -> Iterator[tuple[str, str | None, ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for choice in action._choices_actions:
                name = f"{prefix} {choice.dest}".strip()
                yield name, choice.help, action.choices[choice.dest]
                yield from _subparsers(action.choices[choice.dest], name)


def _without_default(action: Action) -> Action:
    """The same option, which leaves what stands before the subcommand as it is, and the help short."""
    repeated = copy(action)
    repeated.default, repeated.help = SUPPRESS, SUPPRESS
    return repeated
