"""The documentation against the code: it builds, leaves nothing out, and names nothing that does not exist."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import celery
import pytest
from django.apps import apps
from django.dispatch import Signal
from sphinx.util.inventory import InventoryFile

import congressy_mailer
from congressy_mailer import backends, exceptions, send_mail, signals
from congressy_mailer.conf import MailerSettings
from congressy_mailer.management.commands.mailer import Command
from congressy_mailer.models import State
from congressy_mailer.monitoring.measures import measures

pytestmark = pytest.mark.once

ROOT = Path(congressy_mailer.__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "README.pt-BR.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SETTINGS = {setting.name for setting in fields(MailerSettings)}

_BLOCK = re.compile(r"^( *)```python\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_TEST = re.compile(r"\b(tests/[\w/]+\.py)::(\w+)")
_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)[^)]*\)")


def _name(value: object) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else ""


every_page = pytest.mark.parametrize("page", PAGES, ids=_name)


def python_blocks(page: Path) -> Iterator[ast.Module]:
    for block in _BLOCK.finditer(page.read_text()):
        yield ast.parse(inspect.cleandoc(block[2]), f"{_name(page)}: {block[2][:60]!r}")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as HTML, where a warning is an error; with its theme, which takes as long, by ``make docs``."""
    folder = tmp_path_factory.mktemp("docs")
    environment = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-D", "html_theme=basic", "docs", str(folder)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def documented(built: Path) -> set[tuple[str, str]]:
    """Kind and name of everything that the reference has an entry for."""
    inventory = InventoryFile.loads((built / "objects.inv").read_bytes(), uri="")
    return {(kind, name) for kind, entries in inventory.data.items() for name in entries}


def test_every_setting_is_documented(documented: set[tuple[str, str]]) -> None:
    beside = {"CONGRESSY_EMAIL_SENDER", "CONGRESSY_REPLY_TO"}
    assert {name for kind, name in documented if kind == "std:confval"} == SETTINGS | beside


def test_every_exception_is_documented(documented: set[tuple[str, str]]) -> None:
    ours = {
        f"{one.__module__}.{one.__name__}"
        for one in (*vars(exceptions).values(), *vars(backends).values())
        if isinstance(one, type) and issubclass(one, exceptions.MailerError)
    }
    assert {name for kind, name in documented if kind == "py:exception"} == ours


def test_every_state_is_documented(built: Path) -> None:
    page = (built / "reference" / "states.html").read_text()
    assert [state for state in State if f">{state.value}<" not in page] == []


def test_every_check_is_documented(built: Path) -> None:
    page = (built / "reference" / "checks.html").read_text()
    folder = Path(import_module("congressy_mailer.checks").__path__[0])
    source = "".join(module.read_text() for module in folder.glob("*.py"))
    ids = set(re.findall(r'id="(congressy_mailer\.[EW]\d+)"', source))
    assert ids
    assert sorted(one for one in ids if f">{one}<" not in page) == []


def test_every_task_is_documented(built: Path) -> None:
    page = (built / "reference" / "tasks.html").read_text()
    names = {name for name in celery.current_app.tasks if name.startswith("congressy_mailer.")}
    assert "congressy_mailer.deliver" in names
    assert sorted(name for name in names if f">{name}<" not in page) == []


def test_every_signal_is_documented(documented: set[tuple[str, str]]) -> None:
    ours = {f"congressy_mailer.signals.{name}" for name, one in vars(signals).items() if isinstance(one, Signal)}
    assert ours
    assert ours <= {name for kind, name in documented if kind == "py:data"}


def test_every_command_is_documented(built: Path) -> None:
    page = (built / "reference" / "commands.html").read_text()
    help_text = Command().create_parser("manage.py", "mailer").format_help()
    found = re.search(r"\{(health[\w,-]*)\}", help_text)
    assert found
    assert [name for name in found[1].split(",") if f"manage.py mailer {name}" not in re.sub("<[^>]+>", "", page)] == []


def test_every_model_and_field_is_documented(built: Path) -> None:
    page = (built / "reference" / "models.html").read_text()
    missing = [
        f"{model.__name__}.{field.name}"
        for model in apps.get_app_config("congressy_mailer").get_models()
        # One without a table of its own is for the admin.
        if not model._meta.proxy
        for field in model._meta.fields
        if f">{model.__name__}<" not in page or f">{field.name}<" not in page
    ]
    assert missing == []


def test_every_public_name_is_documented() -> None:
    text = (ROOT / "docs" / "reference" / "api.md").read_text()
    entries = set(re.findall(r"^\.\. auto\w+:: (?:[\w.]+\.)?(\w+)$", text, re.MULTILINE))
    assert set(congressy_mailer.__all__) - entries == set()


@every_page
def test_every_test_that_is_named_exists(page: Path) -> None:
    for path, test in _TEST.findall(page.read_text()):
        assert re.search(rf"^ *(async )?def {test}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path}::{test}"


@every_page
def test_no_heading_runs_on_into_the_text_below_it(page: Path) -> None:
    without_code = _FENCE.sub("", page.read_text())
    assert [heading for heading in re.findall(r"^#+ .*", without_code, re.MULTILINE) if heading.endswith(".")] == []


@every_page
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    assert [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()] == []


@every_page
def test_every_setting_that_is_named_exists(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(r"\{confval\}`(\w+)`", text)) | set(re.findall(r"CONGRESSY_MAILER\[\"(\w+)\"\]", text))
    for module in python_blocks(page):
        for node in ast.walk(module):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CONGRESSY_MAILER":
                assert isinstance(node.value, ast.Dict)
                named |= {ast.literal_eval(key) for key in node.value.keys if key is not None}
    assert named - SETTINGS == set()


@every_page
def test_code_compiles_imports_what_there_is_and_calls_it_as_it_is(page: Path) -> None:
    parameters = inspect.signature(send_mail).parameters
    for module in python_blocks(page):
        for node in ast.walk(module):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("congressy_mailer"):
                imported = import_module(node.module or "")
                assert [one.name for one in node.names if not hasattr(imported, one.name)] == []
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "send_mail":
                assert {keyword.arg for keyword in node.keywords} <= set(parameters)


def test_no_comment_with_a_colon_is_taken_for_a_type(built: Path) -> None:
    """Sphinx's napoleon reads ``#: None: nothing is paused`` as a type and its description, and shows them so."""
    entry = re.compile(r'<dl class="py (?:attribute|property)">(.*?)</dl>', re.DOTALL)
    pages = {page.name: entry.findall(page.read_text()) for page in built.rglob("*.html")}
    assert sum(map(len, pages.values())) > 50
    assert [re.sub("<[^>]+>", "", one) for found in pages.values() for one in found if ">Type<" in one] == []


def test_both_quickstarts_and_both_readmes_are_there_and_have_code() -> None:
    for name in ("README.md", "README.pt-BR.md", "docs/quickstart.md", "docs/quickstart.pt-BR.md"):
        assert sum(1 for _ in python_blocks(ROOT / name)) >= 2, name


@pytest.mark.django_db
def test_the_page_of_what_can_be_observed_has_every_signal_metric_and_logger() -> None:
    page = (ROOT / "docs" / "reference" / "observing.md").read_text()
    found = {name for name, value in vars(signals).items() if isinstance(value, Signal)}
    found |= {f"{one.name}_total" if one.kind == "counter" else one.name for one in measures()}
    sources = [path.read_text() for path in Path(congressy_mailer.__file__).parent.rglob("*.py")]
    loggers = {name for source in sources for name in re.findall(r'getLogger\("congressy_mailer(\.\w+)"\)', source)}
    assert {"sent", "congressy_mailer_messages_total"} <= found
    assert loggers
    assert [name for name in sorted(found | loggers) if f"`{name}`" not in page] == []
    named = set(re.findall(r"`(congressy_mailer_\w+)`", page))
    assert named - found == set()
