"""Virtual environments that pip changes as it does a reader's, and from which nothing else is changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import distribution
from pathlib import Path

from tests.support.pages import ROOT

_DISTRIBUTIONS = """
import json
from importlib.metadata import distributions

print(json.dumps([f"{one.name}=={one.version}" for one in distributions()]))
"""


class Environment:
    """What is installed for the tests, and one package of it as files of its own, which pip can uninstall.

    All else is links to the tests' own files. Nothing has to come from the network, and pip, which knows them to be
    outside of the environment, does not touch them.
    """

    def __init__(self, folder: Path, package: str = "") -> None:
        """Make it.

        Args:
            folder: for its files.
            package: name of the distribution that it has as files.
        """
        root = folder / "environment"
        venv.create(root, symlinks=True)
        places = {"base": str(root), "platbase": str(root)}
        #: Of its programs.
        self.programs = Path(sysconfig.get_path("scripts", "venv", places))
        self.python = self.programs / "python"
        packages = Path(sysconfig.get_path("purelib", "venv", places))

        files = (distribution(package).files or []) if package else []
        for file in files:
            copy = packages / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            # With its time, by which Python knows that what is compiled of it is up to date.
            shutil.copy2(file.locate(), copy)
        # This checkout is there as by an editable installation.
        found = [ROOT, *_links(folder / "links", without={file.parts[0] for file in files})]
        (packages / "tests.pth").write_text("".join(f"{path}\n" for path in found))

    def distributions(self) -> set[str]:
        """What Python finds installed, each as ``name==version``."""
        done = subprocess.run(
            [self.python, "-I", "-c", _DISTRIBUTIONS], stdout=subprocess.PIPE, timeout=60, check=True, text=True
        )
        return set(json.loads(done.stdout))


def _links(folder: Path, *, without: set[str]) -> list[Path]:
    """Folders with what this Python finds installed, in the order in which it looks for it."""
    linked = []
    for number, packages in enumerate(path for path in map(Path, sys.path) if path.name == "site-packages"):
        links = folder / str(number)
        links.mkdir(parents=True)
        for entry in packages.iterdir():
            if entry.name not in without:
                (links / entry.name).symlink_to(entry)
        linked.append(links)
    return linked
