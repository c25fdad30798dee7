"""A process that is a copy of one with Django and Celery loaded is none the less like one from a shell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbed.processes import Process, ProcessError, child_processes
from tests.conftest import wait_for
from tests.support.forked import ModuleProcess, least_environment, run_code

pytestmark = [pytest.mark.once, pytest.mark.skipif(sys.platform != "linux", reason="nothing is copied elsewhere")]

_ROOT = Path(__file__).resolve().parents[2]
#: What a process sees of itself.
_LOOK = """
import gc, json, os, signal, sys, threading, warnings
print(json.dumps({
    "arguments": sys.argv[1:], "path": sys.path, "folder": os.getcwd(), "environment": dict(os.environ),
    "signals": {number.name: str(signal.getsignal(number)) for number in signal.Signals},
    "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "umask": os.umask(0o22),
    "leads": os.getpid() == os.getsid(0) == os.getpgrp(), "files": sorted(map(int, os.listdir("/proc/self/fd"))),
    "input": os.readlink("/proc/self/fd/0"), "outputs": [os.readlink(f"/proc/self/fd/{one}") for one in (1, 2)],
    "threads": threading.active_count(), "gc": gc.isenabled(),
    # Some libraries that are loaded have warnings of their own.
    "warnings": [str(one) for one in warnings.filters if one[2].__module__ == "builtins"],
    "main": sys.modules["__main__"].__spec__.name, "buffering": [sys.stdout.line_buffering, sys.stderr.line_buffering],
    "ours": [name for name in sys.modules if name.startswith("congressy_mailer.") or name == "tests.settings"],
}), flush=True)
"""
_TELL_AND_STAY = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


def run(code: str, log: Path, **options: Any) -> ModuleProcess:
    return ModuleProcess("A copy", "tests.support.execute", [code], log, **options)


def ended(process: Process) -> bool:
    return not process.running


def test_it_sees_what_a_process_of_its_own_sees(tmp_path: Path) -> None:
    environment = {"DJANGO_SETTINGS_MODULE": "tests.settings", "MADE_FOR_THIS": "ç", "MAILER_TEST_DIRECTORY": "/x"}
    log = tmp_path / "log"
    copy = run(_LOOK, log, environment=environment)
    seen = copy.first_line(30)
    wait_for(lambda: ended(copy))
    command = [sys.executable, "-m", copy.module, *copy.arguments]
    fresh = Process("A fresh one", command, log, environment=environment, directory=_ROOT)
    assert seen == fresh.first_line(30)
    assert seen["environment"]["MADE_FOR_THIS"] == "ç"
    assert seen["leads"]
    assert seen["ours"] == []
    for process in (copy, fresh):
        process.kill()


def test_it_has_loaded_django_and_celery_and_no_settings(tmp_path: Path) -> None:
    code = """
import json, sys
from django.conf import settings
print(json.dumps({"celery": "celery.worker.worker" in sys.modules, "settings": settings.configured}), flush=True)
"""
    copy = run(code, tmp_path / "log")
    assert copy.first_line(30) == {"celery": True, "settings": False}
    copy.kill()


@pytest.mark.parametrize(("code", "status"), [("raise SystemExit(3)", 3), ("raise ValueError('of its own')", 1)])
def test_its_end_is_known(code: str, status: int, tmp_path: Path) -> None:
    copy = run(code, tmp_path / "log")
    with pytest.raises(ProcessError, match=f"A copy ended with status {status}"):
        copy.wait_until(lambda: False, 30)
    assert ("ValueError: of its own" in copy.output()) == (status == 1)
    copy.kill()


def test_it_does_what_is_left_to_the_end_of_a_process(tmp_path: Path) -> None:
    copy = run("import atexit; atexit.register(print, 'the last word'); print('not flushed')", tmp_path / "log")
    wait_for(lambda: ended(copy))
    assert "not flushed" in copy.output()
    assert copy.output().endswith("the last word\n")


@pytest.mark.parametrize("end", [Process.stop, Process.kill])
def test_it_is_ended_with_what_it_has_started(end: Callable[[Process], None], tmp_path: Path) -> None:
    copy = run("import subprocess; subprocess.run(['sleep', '600'])", tmp_path / "log")
    (child,) = wait_for(lambda: child_processes(copy.pid))
    end(copy)
    assert not copy.running
    assert not Path(f"/proc/{copy.pid}").exists()
    wait_for(lambda: not _lives(child))


def test_it_ends_with_who_started_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = (
        "import sys, time; from pathlib import Path; from tests.support.forked import ModuleProcess; "
        "ModuleProcess('x', 'tests.support.execute', [sys.argv[1]], Path(sys.argv[2])); "
        "time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, _TELL_AND_STAY, str(log)], cwd=_ROOT)
    copy = int(wait_for(lambda: log.exists() and log.read_text()))
    (server,) = child_processes(parent.pid)
    assert child_processes(server) == [copy]
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not _lives(copy) and not _lives(server))


@pytest.mark.parametrize("options", [{"environment": {"PYTHONHASHSEED": "7"}}, {"directory": Path("/")}])
def test_what_a_copy_cannot_have_is_given_to_a_process_of_its_own(options: dict[str, Any], tmp_path: Path) -> None:
    for number, (given, of_its_own) in enumerate([({}, False), (options, True)]):
        log = tmp_path / f"{number}.log"
        process = ModuleProcess("One", "timeit", ["import time; time.sleep(600)"], log, **given)
        assert (process.pid in child_processes(os.getpid())) == of_its_own
        process.kill()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_one_that_runs_to_its_end_tells_its_status_output_and_errors_apart() -> None:
    code = (
        "import os, sys; print('said'); print(dict(os.environ), file=sys.stderr); sys.exit(int(os.environ['STATUS']))"
    )
    done = run_code(code, environment={**least_environment(), "STATUS": "7"})
    assert (done.returncode, done.stdout) == (7, "said\n")
    assert "'STATUS': '7'" in done.stderr
    assert "DJANGO_SETTINGS_MODULE" not in done.stderr
    fresh = run_code(code, environment={"STATUS": "7", "PYTHONHASHSEED": "1"})
    assert (fresh.returncode, fresh.stdout) == (7, "said\n")
    killed = run_code("import os; os.kill(os.getpid(), 9)", environment=least_environment())
    assert killed.returncode == -signal.SIGKILL


def test_one_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    code = f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    with pytest.raises(subprocess.TimeoutExpired):
        run_code(code, environment=least_environment(), seconds=2)
    assert not _lives(int(told.read_text()))
