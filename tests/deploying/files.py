"""The files of the how-to on deploying, and the commands in them."""

from __future__ import annotations

import shlex
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import yaml

from tests.support.pages import ROOT

FOLDER = ROOT / "docs" / "deploying"
#: Where the units expect the project.
PLACE = Path("/srv/project")


def unit(name: str) -> dict[str, dict[str, str]]:
    """The sections of a unit of systemd, none of whose settings is given twice."""
    parser = ConfigParser(interpolation=None, comment_prefixes=["#", ";"])
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    parser.read_string((FOLDER / name).read_text())
    return {section: dict(parser[section]) for section in parser.sections()}


def started_by(name: str, setting: str = "ExecStart") -> list[str]:
    """Program and arguments that a unit starts, as systemd reads them: ``%%`` is a percent sign."""
    words = shlex.split(unit(name)["Service"][setting])
    assert not any("%" in word.replace("%%", "") for word in words), "a specifier of systemd's"
    return [word.replace("%%", "%") for word in words]


def procfile() -> dict[str, str]:
    """The command of each process type."""
    lines = (FOLDER / "Procfile").read_text().splitlines()
    return {name: command.strip() for name, _, command in (line.partition(":") for line in lines)}


def compose() -> dict[str, Any]:
    """The compose file, its merges done."""
    content: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yml").read_text())
    return content


def kubernetes() -> list[dict[str, Any]]:
    """The objects of the manifest."""
    return list(yaml.safe_load_all((FOLDER / "kubernetes.yml").read_text()))


def container(name: str) -> dict[str, Any]:
    """A container of the manifest."""
    containers = [one for thing in kubernetes() for one in thing["spec"]["template"]["spec"]["containers"]]
    [found] = [one for one in containers if one["name"] == name]
    return dict(found)
