"""What a host's own tests do with mail, under Django's own test runner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from tests.support.forked import run_module


def test_a_hosts_tests_send_nothing_over_the_backends_of_transports(
    smtp_server: LocalSparkPost, tmp_path: Path
) -> None:
    options = {"host": "127.0.0.1", "port": smtp_server.port, "username": "SMTP_Injection", "use_tls": True}
    europe = {
        "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "OPTIONS": {**options, "password": smtp_server.password},
    }
    environment = {
        **os.environ, **smtp_server.environment(), "MAILER_TEST_DIRECTORY": str(tmp_path), "MAILER_TEST_WORKER": "",
        "MAILER_TEST_OPTIONS": json.dumps({"TRANSPORTS": {"europe": europe}}), "DATABASE_URL": "",
        # Where Django has MAILERS, its runner replaces all of that.
        "MAILER_TEST_MAILERS": "1",
    }  # fmt: skip
    arguments = ["test", "tests.project", "-p", "mail_tests.py", "--settings=tests.settings"]
    run = run_module("django", *arguments, environment=environment)
    assert run.returncode == 0, run.stderr
    assert "Ran 4 tests" in run.stderr
    assert len(smtp_server.mailbox) == 0


def test_without_its_extra_the_local_sparkpost_names_it() -> None:
    for missing in ("aiosmtpd", "cryptography", "requests"):
        script = f"import sys; sys.modules['{missing}'] = None; import congressy_mailer.testing.local_sparkpost.whole"
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        (*_, error) = run.stderr.splitlines()
        assert error.endswith(
            f'The local SparkPost needs {missing}: pip install "congressy-mailer[local-sparkpost]".'
        ), run.stderr
