"""The rule of the package's root, how long classes and modules may be, and names in docstrings, which rooms outlive."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import congressy_mailer

pytestmark = pytest.mark.once

ROOT = Path(congressy_mailer.__file__).parent

#: What a project imports, and what Django and Celery load by name; then what several rooms stand on.
MODULES = {
    *{"__init__", "mail", "bulk", "pausing", "personal_data", "exceptions", "signals", "health"},
    *{"apps", "backends", "tasks", "worker", "urls"},
    *{"replies", "credentials", "redaction", "periodic"},
}

#: Folders of tests that belong to no single room: the package as a whole, and what several rooms do together.
TESTS_OF_NO_ROOM = {
    *{"package", "docs", "backends", "workers", "testbed"},
    # What these need is made for them, or they have a command of their own.
    *{
        "browser",
        "chaos",
        "deploying",
        "distributions",
        "django_mail",
        "examples",
        "releases",
        "servers",
        "third_parties",
    },
    # What tests are made of.
    *{"project", "support", "templates"},
}

#: Lines of a class, and of a module, that can be read at one sitting.
LONGEST_CLASS, LONGEST_MODULE = 250, 350

_REFERENCE = re.compile(
    r":(?:mod|func|class|meth|data|attr|exc):`~?(?:[^`<]*<)?(?P<dot>\.?)(?P<name>[\w.]+)(?:\(\))?>?`"
)


def test_no_other_module_lies_at_the_root() -> None:
    assert {path.stem for path in ROOT.glob("*.py")} == MODULES


def test_the_folders_of_the_tests_are_those_of_the_rooms() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"migrations", "templatetags"}
    folders = {path.name for path in (ROOT.parent / "tests").iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == rooms | TESTS_OF_NO_ROOM


def test_each_folder_of_modules_is_a_package() -> None:
    # Python imports from one that is none, out of the checkout; setuptools leaves it out of the wheel.
    folders = {path.parent for path in ROOT.rglob("*.py")}
    assert [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_each_module_says_what_it_is_for_in_its_first_line() -> None:
    # Django finds these packages by their place, and there is nothing to say of them.
    found_by_place = {"migrations", "commands", "management", "templatetags"}
    assert [
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if not path.read_text().startswith('"""')
        and not (path.name == "__init__.py" and path.parent.name in found_by_place)
        and path.parent.name != "migrations"
    ] == []


def test_each_class_and_each_module_can_be_read_at_one_sitting() -> None:
    longer = []
    for path in ROOT.rglob("*.py"):
        if path.parent.name == "migrations":
            continue
        name, source = str(path.relative_to(ROOT)), path.read_text()
        if source.count("\n") > LONGEST_MODULE:
            longer.append(name)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno >= LONGEST_CLASS:
                longer.append(f"{name} {node.name}")
    assert longer == []


def references() -> Iterator[tuple[str, str]]:
    """Each module with the names that its docstrings and comments refer to."""
    for path in sorted(ROOT.rglob("*.py")):
        module = ".".join(["congressy_mailer", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
        for reference in sorted({match["name"] for match in _REFERENCE.finditer(path.read_text())}):
            yield module, reference


def resolves(module: str, name: str) -> bool:
    """Whether a name can be found from a module: in it, in a class of it, in a package around it, or anywhere."""
    classes = [value for value in vars(import_module(module)).values() if isinstance(value, type)]
    owners: list[Any] = [import_module(module), *classes]
    prefixes = ["", *(".".join(module.split(".")[:end]) + "." for end in range(1, module.count(".") + 2))]
    return any(_attribute(owner, name.split(".")) for owner in owners) or any(
        _absolute(f"{prefix}{name}") for prefix in prefixes
    )


def _absolute(name: str) -> bool:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:end]))
        except ImportError:
            continue
        return _attribute(found, parts[end:])
    return False


def _attribute(owner: Any, names: list[str]) -> bool:
    for position, name in enumerate(names):
        if name in getattr(owner, "__dataclass_fields__", {}) or name in getattr(owner, "__annotations__", {}):
            return position == len(names) - 1
        if not hasattr(owner, name):
            return False
        owner = getattr(owner, name)
    return True


def test_what_docstrings_refer_to_is_there() -> None:
    assert [f"{module} → {name}" for module, name in references() if not resolves(module, name)] == []


def test_modules_that_the_documentation_names_are_there() -> None:
    pages = (ROOT.parent / "docs" / "explanation").glob("*.md")
    named = {name for page in pages for name in re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text())}
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists() and not (ROOT.parent / name).exists()] == []
