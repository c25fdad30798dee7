"""``python -m demo`` runs the demo to its end; ``python -m demo site`` serves it until it is interrupted."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from testbed.processes import ProcessError
from testbed.redis_server import RedisNotFoundError

from . import terminal
from .services import WORKER_COMMAND, Services
from .visitors import FEWEST, PageError

#: First port that the site is looked for at; the next ones if it is taken.
_SITE_PORT = 8000


def main() -> int:
    """Read the command line and run; returns the exit status."""
    options = _options()
    # With SIGTERM, too, everything is to be ended that was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = _run_directory(options.keep)
    try:
        return _serve(directory) if options.what == "site" else _demonstrate(directory, options.people)
    except (RedisNotFoundError, ProcessError, PageError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        terminal.say("\nInterrupted. Everything that was started has ended.")
        return 130
    finally:
        if options.keep is None:
            _tidy(directory, keep_mails=options.what != "site")


def _demonstrate(directory: Path, people: int) -> int:
    terminal.say("Congressy Mailer: starting Redis, a mail server, a Celery worker and a site ...")
    with Services(directory) as services:
        _introduce(services)
        # Models can be imported only now that Django has been set up.
        from .run import StuckError, run_demo

        try:
            return 0 if run_demo(services, people) else 1
        except (StuckError, PageError) as error:
            terminal.say(str(error))
            terminal.say_log(services.worker)
            return 1


def _serve(directory: Path) -> int:
    terminal.say("Congressy Mailer: starting Redis, a mail server, a Celery worker and a site ...")
    with Services(directory, site_port=_SITE_PORT) as services:
        from .run import use_site

        use_site(services)
        _introduce(
            services,
            {
                "Inbox": f"{services.address}/inbox/ (every mail that the mail server has received)",
                "Admin": f"{services.address}/admin/ (user admin, password {services.admin_password})",
            },
        )
        terminal.say("Press Ctrl-C to stop it.")
        threading.Event().wait()
    return 0


def _introduce(services: Services, also: Mapping[str, str] | None = None) -> None:
    terminal.say_facts(
        {
            "Redis": services.redis.url,
            "Mail": f"127.0.0.1:{services.mail_port}, speaks as SparkPost does (STARTTLS, AUTH LOGIN)",
            "Worker": " ".join(WORKER_COMMAND),
            "Site": f"{services.address}/ (registration for a congress, in Portuguese, as its mails are)",
            **(also or {}),
        }
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["site"], help="serve the site instead of running the demo")
    parser.add_argument("--people", type=int, default=200, help="how many people register (default: 200)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="store everything in this new folder and leave it")
    options = parser.parse_args()
    if options.people < FEWEST:
        parser.error(f"--people must be at least {FEWEST}")
    if options.keep is not None and options.keep.exists() and any(options.keep.iterdir()):
        parser.error(f"--keep: {options.keep} is not empty")
    return options


def _run_directory(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="congressy-demo-"))
    keep.mkdir(parents=True, exist_ok=True)
    return keep.resolve()


def _tidy(directory: Path, *, keep_mails: bool) -> None:
    """Remove what the services have stored: the database, attachments, logs. The mails of a demo are its result."""
    for path in directory.iterdir():
        if keep_mails and path.name == "mails":
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    if not any(directory.iterdir()):
        directory.rmdir()


if __name__ == "__main__":
    sys.exit(main())
