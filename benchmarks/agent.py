"""The process that calls: a Django project with one system installed, which does what it is told.

``python -m benchmarks.agent`` reads orders from its standard input, a JSON object in each line, and answers each with
one: ``{"do": "send_many", "first": 1, "count": 100}``. What it can do are the functions of :mod:`.orders`.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from congressy_mailer.testing.local_sparkpost import lifetime
from congressy_mailer.testing.local_sparkpost.startable import Startable

_ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 60.0


class AgentError(RuntimeError):
    """It could not do what it was told; the text says why."""


class Agent(Startable):
    """The process, seen from the one that gives the orders."""

    def __init__(self, python: str, environment: Mapping[str, str], log: Path) -> None:
        """Prepare it.

        Args:
            python: interpreter of the environment to run in.
            environment: what it sees beside the environment of this process.
            log: file for what it writes beside its answers.
        """
        self._python = python
        self._environment = {**os.environ, **environment}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until Django is set up."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, lifetime.__file__, str(os.getpid()), "15",
                    self._python, "-W", "ignore", "-m", "benchmarks.agent",
                ],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=self._environment, cwd=_ROOT,
                start_new_session=True,
            )  # fmt: skip
        self.order("no_operation", seconds=_START_SECONDS)

    def order(self, do: str, *, seconds: float = 120, **arguments: Any) -> Any:
        """Have something done, and return what came of it.

        Args:
            do: name of a function in :mod:`.orders`.
            seconds: how long it may take.
            arguments: of the function.

        Raises:
            AgentError: it failed, or took longer.
        """
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            raise AgentError(f"{do}: the caller's process has ended. {self._tail()}") from error
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                self.close()
                raise AgentError(f"{do} took longer than {seconds:.0f} s")
        line = process.stdout.readline()
        if not line:
            raise AgentError(f"{do}: the caller's process has ended. {self._tail()}")
        answer = json.loads(line)
        if "error" in answer:
            raise AgentError(f"{do}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        """End it."""
        process = self._process
        if process is None:
            return
        self._process = None
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " / ".join(line.strip() for line in lines[-3:])


def main() -> None:
    """Do what the lines of the standard input say, until its end."""
    answers = os.fdopen(os.dup(1), "w")
    # Whatever else is printed is no answer.
    os.dup2(2, 1)
    import django

    django.setup()
    from . import orders

    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = {"result": getattr(orders, order.pop("do"))(**order)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
