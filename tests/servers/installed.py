"""Mail servers as their packages bring them, on ports of their own: what each has delivered is in a file of ours."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import ClassVar

from testbed.processes import free_port

#: Where packages are unpacked: nothing of them is installed, so that none starts or replaces another.
PACKAGES = Path(__file__).resolve().parents[2] / "build" / "servers"
_START_SECONDS = 60.0


class NotAvailable(Exception):
    """The server cannot be had on this machine."""


class NotStarted(Exception):
    """The server ended, or did not answer, with what it said."""


class RealServer(ABC):
    """A mail server that writes down each recipient that it has delivered a mail to. Used as a context manager."""

    name: ClassVar[str]
    #: What is configured on ports of its own, beside what every server has on :attr:`port`.
    variants: ClassVar[Collection[str]] = ()

    def __init__(self, directory: Path) -> None:
        self.directory = directory / self.name.lower()
        self.directory.mkdir(parents=True)
        self.ports = {variant: free_port() for variant in ("", *self.variants)}
        self.port = self.ports[""]
        self._delivered = self.directory / "delivered"
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Install and configure it; returns what starts it in the foreground."""

    def delivered(self) -> Counter[tuple[str, str]]:
        """How often each recipient has each mail: by ``Message-ID`` and address."""
        if not self._delivered.exists():
            return Counter()
        return Counter(tuple(line.split()) for line in self._delivered.read_text().splitlines())  # type: ignore[misc]

    def __enter__(self) -> RealServer:
        command = self.command()
        environment = {**os.environ, "DELIVERED": str(self._delivered)}
        with (self.directory / "output").open("wb") as output:
            self._process = subprocess.Popen(
                command, cwd=self.directory, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                said = (self.directory / "output").read_text(errors="replace")
                self.__exit__()
                raise NotStarted(said)
            time.sleep(0.1)
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as client:
                client.settimeout(1)
                return client.recv(3) == b"220"
        except OSError:
            return False

    def _script(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path


class Haraka(RealServer):
    """From npm. It refuses commands behind a final dot since 3.3.4."""

    name = "Haraka"

    def command(self) -> list[str]:
        package = PACKAGES / "haraka"
        main = package / "node_modules" / "haraka"
        if not main.exists():
            package.mkdir(parents=True, exist_ok=True)
            npm = ["npm", "install", "--prefix", str(package), "--no-audit", "--no-fund", "--silent", "haraka"]
            _download(npm, package)
        self._script("config/smtp.ini", f"listen=127.0.0.1:{self.port}\nnodes=0\n")
        self._script("config/me", "localhost\n")
        self._script("config/plugins", "sink\n")
        shutil.copy(main / "config" / "connection.ini", self.directory / "config")
        self._script(
            "plugins/sink.js",
            """
            const fs = require('fs')
            const seen = new Set()
            const text = (address) => typeof address.address === 'function' ? address.address() : address.address
            exports.hook_rcpt = function (next, connection, params) {
              const to = text(params[0])
              if (to.startsWith('nobody')) return next(DENY, 'no such user')
              if (to.startsWith('later') && !seen.has(to)) { seen.add(to); return next(DENYSOFT, 'later') }
              next(OK)
            }
            exports.hook_queue = function (next, connection) {
              const mail = connection.transaction
              const id = mail.header.get('Message-ID').trim()
              fs.appendFileSync(process.env.DELIVERED, mail.rcpt_to.map((to) => `${id} ${text(to)}\\n`).join(''))
              next(OK)
            }
            """,
        )
        return ["node", str(main / "bin" / "haraka"), "-c", str(self.directory)]


class Chasquid(RealServer):
    """From Debian. It throws away what stands behind a final dot."""

    name = "chasquid"

    def command(self) -> list[str]:
        program = debian_package("chasquid") / "usr" / "bin" / "chasquid"
        folder = self.directory / "conf"
        for part in ("domains/example.com", "certs/localhost", "hooks"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        certificate = folder / "certs" / "localhost"
        subprocess.run(
            [
                *["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"],
                *["-keyout", str(certificate / "privkey.pem"), "-out", str(certificate / "fullchain.pem")],
            ],
            check=True,
            capture_output=True,
        )
        deliver = self._script(
            "deliver",
            "#!/bin/sh\n"
            "id=$(grep -im1 '^message-id:' | cut -d' ' -f2 | tr -d '\\r')\n"
            'printf \'%s %s\\n\' "$id" "$1" >> "$DELIVERED"\n',
        )
        # An address without aliases is unknown, unless "*" at its domain has some.
        resolve = f'#!/bin/sh\ncase "$1" in nobody*|\\**) exit 0;; esac\necho "| {deliver} $1"\n'
        self._script("conf/hooks/alias-resolve", resolve)
        (folder / "chasquid.conf").write_text(
            f'hostname: "localhost"\nsmtp_address: "127.0.0.1:{self.port}"\n'
            f'submission_address: "127.0.0.1:{free_port()}"\ndata_dir: "{self.directory}/data"\n'
            f'mail_log_path: "{self.directory}/log"\n'
        )
        return [str(program), f"--config_dir={folder}"]


def debian_package(name: str) -> Path:
    """Download a package of Debian unless it is here, and return the folder that it is unpacked in.

    Raises:
        NotAvailable: it cannot be downloaded.
    """
    folder = PACKAGES / name
    if not folder.exists():
        archives = PACKAGES / "archives" / name
        shutil.rmtree(archives, ignore_errors=True)
        archives.mkdir(parents=True)
        try:
            _download(["apt-get", "download", "-qq", name], archives)
        except NotAvailable:
            _download(["apt-get", "update", "-qq"], archives)
            _download(["apt-get", "download", "-qq", name], archives)
        (archive,) = archives.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", str(archive), str(archives / "unpacked")], check=True)
        (archives / "unpacked").rename(folder)
    return folder


def _download(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    except OSError as error:
        raise NotAvailable(f"{command[0]} is not here") from error
    except subprocess.CalledProcessError as error:
        raise NotAvailable(f"{' '.join(command)}: {error.stderr.strip()}") from error
