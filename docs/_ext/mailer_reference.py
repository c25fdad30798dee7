"""Sphinx extension: the parts of the reference that are generated from the code of ``congressy_mailer``.

Directives, all without content: ``mailer-settings``, ``mailer-states``, ``mailer-tasks``, ``mailer-commands``,
``mailer-checks``, ``mailer-doctor``, ``mailer-bounces``, and ``mailer-model`` with the name of a model. What a thing
means is read from its ``#:`` comment, its help or its docstring, so that nothing is written twice. Each directive is a
function that returns reStructuredText, since that is what docstrings are written in; the functions need no Sphinx
application and are tested as they are.
"""

from __future__ import annotations

import re
from argparse import Action, ArgumentParser, _SubParsersAction
from collections.abc import Callable
from dataclasses import MISSING, fields
from datetime import timedelta
from inspect import cleandoc, getmembers, isfunction
from textwrap import indent
from typing import Any

import django
from django.conf import settings
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

_TASK_OPTIONS = (
    "acks_late",
    "reject_on_worker_lost",
    "ignore_result",
    "autoretry_for",
    "max_retries",
    "retry_backoff",
    "retry_backoff_max",
    "retry_jitter",
)

_OPTIONS_OF_EVERY_COMMAND = {
    "help", "version", "verbosity", "settings", "pythonpath", "traceback", "no_color", "force_color", "skip_checks",
}  # fmt: skip


def set_up_django() -> None:
    """Have the models importable; a project that is set up already, as in tests, is left alone."""
    if not settings.configured:
        settings.configure(
            INSTALLED_APPS=["django.contrib.contenttypes", "congressy_mailer"],
            SECRET_KEY="only for building the documentation",  # noqa: S106
            USE_TZ=True,
        )
        django.setup()


def comments(module: str, owner: str) -> dict[str, str]:
    """The ``#:`` comments of a class, by attribute."""
    found = ModuleAnalyzer.for_module(module).find_attr_docs()
    return {name: "\n".join(lines).strip() for (scope, name), lines in found.items() if scope == owner}


def settings_reference() -> str:
    """Every key of ``CONGRESSY_MAILER``."""
    from congressy_mailer.conf import MailerSettings

    meanings = comments("congressy_mailer.conf.settings", "MailerSettings")
    entries = []
    for field in fields(MailerSettings):
        default = field.default if field.default is not MISSING else field.default_factory()  # type: ignore[misc]
        head = f".. confval:: {field.name}\n   :type: ``{field.type}``\n   :default: ``{shown(default)}``"
        entries.append(f"{head}\n\n{indent(meanings[field.name], '   ')}")
    return "\n\n".join(entries)


def shown(value: object) -> str:
    """A value as one would write it in the settings."""
    if not isinstance(value, timedelta):
        return repr(value)
    seconds = value.total_seconds()
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1)):
        if seconds >= length and seconds % length == 0:
            return f"timedelta({unit}={seconds // length:.0f})"
    return f"timedelta(milliseconds={seconds * 1000:.0f})"


def states_reference() -> str:
    """Every state of a message."""
    from congressy_mailer.models import State
    from congressy_mailer.outbox import FINAL, RETRYABLE

    meanings = comments(State.__module__, "State")
    entries = []
    for state in State:
        left_by = "``retry()`` and ``resend()`` queue" if state in RETRYABLE else "``resend()`` queues"
        final = f" Final; {left_by} it again." if state in FINAL else ""
        entries.append(f"``{state.value}``\n   {' '.join(meanings[state.name].split())}{final}")
    return "\n\n".join(entries)


def tasks_reference() -> str:
    """Every Celery task, with the options that its retrying depends on."""
    from celery import Task
    from celery.app.task import Task as Defaults

    from congressy_mailer import tasks

    entries = []
    for _, task in getmembers(tasks, lambda member: isinstance(member, Task)):
        text = cleandoc(task.run.__doc__ or "")
        # An option that nobody set is None, and False once the task belongs to an app.
        set_here = [
            name
            for name in _TASK_OPTIONS
            if (value := getattr(task, name, None)) is not False and value != getattr(Defaults, name, None)
        ]
        options = [f"- ``{name} = {_option(getattr(task, name))}``" for name in set_here]
        entries.append("\n".join([f"``{task.name}``", indent(text, "   "), "", indent("\n".join(options), "   ")]))
    return "\n\n".join(entries)


def _option(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(one.__name__ for one in value)})"
    return repr(value)


def commands_reference() -> str:
    """Every subcommand of ``manage.py mailer``, with its options."""
    from congressy_mailer.management.commands.mailer import Command

    parser = Command().create_parser("manage.py", "mailer")
    (commands,) = (action for action in parser._actions if isinstance(action, _SubParsersAction))
    entries = []
    for told in commands._choices_actions:
        entries += _command_entries(f"manage.py mailer {told.dest}", told.help, commands.choices[told.dest])
    return "\n\n".join(entries)


def _command_entries(name: str, meaning: str | None, parser: ArgumentParser) -> list[str]:
    """A command with its options, and those below it."""
    options, below = [], []
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for told in action._choices_actions:
                below += _command_entries(f"{name} {told.dest}", told.help, action.choices[told.dest])
        elif action.dest not in _OPTIONS_OF_EVERY_COMMAND:
            # As argparse shows it, with the default.
            meaning_of_option = parser._get_formatter()._expand_help(action)
            options.append(f"- ``{_as_typed(action)}``: {meaning_of_option}")
    text = "\n".join([meaning or "", "", *options])
    return [f"``{name}``\n{indent(text, '   ')}", *below]


def _as_typed(action: Action) -> str:
    value = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
    return f"{', '.join(action.option_strings)} {value}".strip()


def checks_reference() -> str:
    """Every system check with its ids."""
    from congressy_mailer import checks

    entries = []
    for _, check in getmembers(checks, lambda member: isfunction(member) and hasattr(member, "tags")):
        # "``congressy_mailer.E007``/``E008``" names the second id in full, too.
        text = re.sub(r"``/``(?=[EW]\d)", "`` and ``congressy_mailer.", cleandoc(check.__doc__ or ""))
        entries.append(text)
    entries.sort(key=lambda text: re.findall(r"congressy_mailer\.([EW]\d+)", text))
    return "\n".join(f"- {indent(text, '  ').strip()}" for text in entries)


def doctor_reference() -> str:
    """Every examination of ``mailer doctor``, each with a label of its own."""
    from congressy_mailer.diagnosis import EXAMINATIONS

    parts = []
    for one in EXAMINATIONS.values():
        title = f"{one.title} (``{one.id}``)"
        text = cleandoc(one.look.__doc__ or "")
        parts.append(f".. _doctor-{one.id}:\n\n.. rubric:: {title}\n\n{text}")
    return "\n\n".join(parts)


def bounces_reference() -> str:
    """Every class of bounces, and what follows from it."""
    from congressy_mailer.conf import SUPPRESSION_RULES
    from congressy_mailer.sparkpost.bounce_classes import BOUNCE_CLASSES, Effect

    rules = {Effect.POLICY: "admin", Effect.ANSWER: None, Effect.BLOCK: None}
    meanings = comments("congressy_mailer.sparkpost.bounce_classes", "Effect")
    rows = [".. list-table::\n   :header-rows: 1\n\n   * - Class\n     - Name\n     - Category\n     - What we do"]
    rows[0] += "\n     - Suppressed by default\n     - SparkPost's page"
    for one in BOUNCE_CLASSES.values():
        rule = rules.get(one.effect, one.effect.value)
        scope = (SUPPRESSION_RULES[rule] or "no") if rule else "no"
        cells = [str(one.code), one.name, one.category.value, " ".join(meanings[one.effect.name].split())]
        cells += [scope if scope == "no" else f"``{scope}``", f"`{one.page.rpartition('/')[2]} <{one.page}>`__"]
        rows.append("   * - " + "\n     - ".join(cells))
    return "\n".join(rows)


def model_reference(name: str) -> str:
    """Every field of a model."""
    from congressy_mailer import models

    model = getattr(models, name)
    # A model's own comments go before those of its bases.
    bases = [base for base in reversed(model.__mro__) if base.__module__.startswith("congressy_mailer.")]
    meanings = {key: text for base in bases for key, text in comments(base.__module__, base.__name__).items()}
    rows = [".. list-table::\n   :header-rows: 1\n\n   * - Field\n     - Type\n     - Meaning"]
    for field in model._meta.fields:
        meaning = meanings.get(field.name) or ("Primary key." if field.primary_key else None)
        if meaning is None:
            raise ValueError(f"{name}.{field.name} has no comment that says what it means.")
        kind = field.related_model.__name__ if field.related_model else field.get_internal_type()
        rows.append(f"   * - ``{field.name}``\n     - {kind}\n     - {' '.join(meaning.split())}")
    return f"{cleandoc(model.__doc__)}\n\n" + "\n".join(rows)


class _Generated(SphinxDirective):
    """Puts in what a function has generated."""

    write: Callable[..., str]

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(type(self).write(*self.arguments))


def _directive(function: Callable[..., str], arguments: int = 0) -> type[_Generated]:
    members = {"write": staticmethod(function), "required_arguments": arguments, "__doc__": function.__doc__}
    return type("Generated", (_Generated,), members)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    set_up_django()
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.add_directive("mailer-settings", _directive(settings_reference))
    app.add_directive("mailer-states", _directive(states_reference))
    app.add_directive("mailer-tasks", _directive(tasks_reference))
    app.add_directive("mailer-commands", _directive(commands_reference))
    app.add_directive("mailer-checks", _directive(checks_reference))
    app.add_directive("mailer-doctor", _directive(doctor_reference))
    app.add_directive("mailer-bounces", _directive(bounces_reference))
    app.add_directive("mailer-model", _directive(model_reference, arguments=1))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
