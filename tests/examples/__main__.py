"""Check the types of the documentation's examples by mypy and pyright: ``python -m tests.examples``."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.examples.modules import write_modules
from tests.support.pages import ROOT, Block

_FOLDER = ROOT / "build" / "examples"
#: What readers write beside the examples.
_CALLS = Path(__file__).with_name("calls.py")
_SCRATCH = ROOT / "build" / "scratch"
#: A reader's settings, beside the plug-in of django-stubs, which pyright knows nothing of.
_PYRIGHT = {"typeCheckingMode": "standard", "extraPaths": ["../.."]}


def main() -> int:
    """Write the modules, have each checker look at them, and tell what each has found by page and line."""
    shutil.rmtree(_FOLDER, ignore_errors=True)
    _FOLDER.mkdir(parents=True)
    _SCRATCH.mkdir(parents=True, exist_ok=True)
    modules = write_modules(_FOLDER)
    shutil.copy(_CALLS, _FOLDER)
    problems = [*_mypy(modules), *_pyright(modules)]
    print("\n".join(problems))
    print(f"{len(modules)} examples, {len(problems)} problems")
    return 1 if problems or not modules else 0


def _mypy(modules: Mapping[Path, Block]) -> Iterator[str]:
    """What mypy finds, strictly and with the plug-in of django-stubs, as the project itself is checked."""
    done = _run(
        [
            "mypy",
            "--explicit-package-bases",
            "--hide-error-context",
            "--no-error-summary",
            str(_CALLS),
            *map(str, modules),
        ],
        MYPYPATH=str(_FOLDER),
        MAILER_TEST_DIRECTORY=str(_SCRATCH),
    )
    if done.returncode > 1 or done.stderr:
        yield f"mypy: {done.stdout}{done.stderr}"
        return
    for line in done.stdout.splitlines():
        found = re.fullmatch(r"(?P<file>[^:]+):(?P<line>\d+): (?P<text>.*)", line)
        yield f"mypy: {_place(modules, ROOT / found['file'], found['line'])}: {found['text']}" if found else line


def _pyright(modules: Mapping[Path, Block]) -> Iterator[str]:
    """What pyright finds without any plug-in."""
    (_FOLDER / "pyrightconfig.json").write_text(json.dumps(_PYRIGHT))
    done = _run(["pyright", "--project", str(_FOLDER), "--pythonpath", sys.executable, "--outputjson"])
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        yield f"pyright: {done.stdout}{done.stderr}"
        return
    if report["summary"]["filesAnalyzed"] < len(modules):
        yield f"pyright: it has looked at {report['summary']['filesAnalyzed']} of {len(modules)} examples"
    for one in report["generalDiagnostics"]:
        place = _place(modules, Path(one["file"]), one["range"]["start"]["line"] + 1)
        yield f"pyright: {place}: {one['message']} [{one.get('rule', one['severity'])}]"


def _place(modules: Mapping[Path, Block], file: Path, line: int | str) -> str:
    """Page and line, of which the modules keep the latter."""
    block = modules.get(file)
    return f"{(block.page if block else file).relative_to(ROOT)}:{line}"


def _run(command: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name(command[0])
    return subprocess.run(
        [str(program), *command[1:]],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
