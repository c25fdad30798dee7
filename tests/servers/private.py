"""Servers out of Debian's packages, each in a view of the file system of its own, which ends with it.

The packages are laid over ``/usr`` and ``/etc`` in a mount namespace: nothing is installed, nobody else sees them, and
servers that would replace each other can run at once. In its own process namespace every process of a server ends when
the first one does. This needs root and a kernel that allows it.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from .behind import Rules, Sink
from .installed import NotAvailable, RealServer, debian_package

_LAY_OVER = """#!/bin/bash
set -e
mkdir -p "$LAYERS"
mount -t tmpfs layers "$LAYERS"
for part in usr etc; do
    mkdir "$LAYERS/$part" "$LAYERS/$part.work" "$LAYERS/empty.$part"
    below=
    for package in $PACKAGES; do [ ! -d "$package/$part" ] || below+="$package/$part:"; done
    mount -t overlay "$part" -o "lowerdir=$below/$part,upperdir=$LAYERS/$part,workdir=$LAYERS/$part.work" "/$part"
done
for part in /var/spool /var/lib /run; do mount -t tmpfs scratch "$part" -o mode=0755; done
echo "127.0.0.1 localhost.localdomain localhost $(hostname).localdomain $(hostname)" > /etc/hosts
echo "hosts: files" > /etc/nsswitch.conf
for user in $USERS; do
    getent passwd "$user" >/dev/null || useradd --system --user-group --no-create-home --home-dir /nonexistent "$user"
done
"""


class PrivateServer(RealServer):
    """A server with the rules and the sink behind it."""

    #: Debian's packages that are laid over the system.
    packages: ClassVar[tuple[str, ...]]
    #: System users that the server wants, each with a group of that name.
    users: ClassVar[tuple[str, ...]]

    def __enter__(self) -> RealServer:
        if os.geteuid() != 0 or subprocess.run(_UNSHARE + ["true"], capture_output=True).returncode:
            raise NotAvailable("mount namespaces need root and a kernel that allows them")
        self.rules = Rules()
        self.sink = Sink()
        try:
            return super().__enter__()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            # The kernel forgets to end it with unshare once it has changed its user.
            with suppress(OSError):
                for child in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split():
                    os.kill(int(child), signal.SIGKILL)
        super().__exit__(*error)
        self.rules.close()
        self.sink.close()

    def delivered(self) -> Counter[tuple[str, str]]:
        """What has come into the sink."""
        with self.sink.lock:
            return Counter(self.sink.delivered)

    def command(self) -> list[str]:
        """Lay the packages over the system, and run :meth:`script` there."""
        packages = " ".join(str(debian_package(name)) for name in self.packages)
        variables = f"LAYERS={self.directory}/layers\nPACKAGES='{packages}'\nUSERS='{' '.join(self.users)}'\n"
        head, _, rest = _LAY_OVER.partition("\n")
        return [*_UNSHARE, str(self._script("start", f"{head}\n{variables}{rest}{self.script()}"))]

    def script(self) -> str:
        """Shell commands that configure the server; the last one runs it in the foreground, by ``exec``."""
        raise NotImplementedError

    def file(self, path: str, text: str) -> str:
        """Shell commands that write a file within the server's view."""
        source = self.directory / "files" / path.lstrip("/")
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(text)
        return f"install -D -m 0644 {source} {path}\n"


_UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
