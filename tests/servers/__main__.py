"""Real mail servers, tried with the mailer's transport: ``python -m tests.servers [--only NAME]``.

Every mail goes to every recipient that the server takes, until nobody is deferred. Behind the server each recipient is
counted. A copy is explained where an outcome was in doubt: the connection broke between the content and its reply.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Run the cases, print the table, and return the exit status."""
    parser = argparse.ArgumentParser("python -m tests.servers", description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", action="append", help="only this server (may be repeated)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="mailer-servers-") as name:
        os.environ["MAILER_TEST_DIRECTORY"] = name
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
        import django

        django.setup()
        return _run_all(Path(name), {one.lower() for one in options.only or ()}, options.seed)


def _run_all(directory: Path, only: set[str], seed: int) -> int:
    from .cases import CASES
    from .debian import SERVERS
    from .installed import Chasquid, Haraka, NotAvailable, NotStarted, RealServer

    print(f"Seed {seed}\n{'server':<10} {'case':<34} {'sent':>5} {'lost':>5} {'copies':>6} {'explained':>9} {'s':>6}")
    passed = failed = 0
    kinds: list[type[RealServer]] = [Haraka, Chasquid, *SERVERS]
    for kind in kinds:
        if only and kind.name.lower() not in only:
            continue
        try:
            with kind(directory) as server:
                for name, case in CASES.items():
                    if case.variant not in server.ports:
                        continue
                    began = time.monotonic()
                    result = case.run(server, server.ports[case.variant], random.Random(f"{seed} {kind.name} {name}"))
                    took = time.monotonic() - began
                    good = not (result.lost or result.copies > result.explained or result.problems)
                    passed, failed = passed + good, failed + (not good)
                    print(
                        f"{kind.name:<10} {name:<34} {result.sent:>5} {result.lost:>5} {result.copies:>6} "
                        f"{result.explained:>9} {took:>6.1f}{'' if good else '  FAILED'}",
                        *result.problems,
                        sep="\n  " if result.problems else "",
                        flush=True,
                    )
        except NotAvailable as error:
            # Only where it was asked for is that a failure.
            failed += bool(only)
            print(f"{kind.name:<10} not available: {error}", flush=True)
        except NotStarted as error:
            failed += 1
            print(f"{kind.name:<10} does not start:\n{error}", flush=True)
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
