"""Runs a Dockerfile without Docker: each instruction for real, in an overlay over this machine's files.

The overlay is in a mount namespace of its own, and what is written there stays there: ``useradd``, ``chown`` and the
user of a process are real, which takes root. It is no container otherwise: this machine's programs are beneath it, its
network is shared, and the Python of the tests stands for the image's. An instruction that is not known here is an error
that names its line.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from testbed.processes import Process

#: Where the virtual environment is that stands for the image's Python.
_PYTHON = "/opt/image-python"
#: Without /usr/local, where this machine may have programs that the image does not install.
_PATH = f"{_PYTHON}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: How this machine's pip and TLS reach the package index.
_FOR_BUILDING = re.compile(r"PIP_\w+|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|\w+_proxy", re.IGNORECASE)
_MOUNT = """
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount --bind "$1/copied" "$1/root/mnt"
mount --rbind /dev "$1/root/dev"
mount -t proc proc "$1/root/proc"
echo "127.0.0.1 localhost $2" >>"$1/root/etc/hosts"
echo mounted
exec sleep infinity
"""


class CannotRun(Exception):
    """An instruction failed, or is none that can be run here; the text has its line."""


class Instruction(NamedTuple):
    """One instruction, its continued lines joined."""

    #: The first of its lines, from 1.
    line: int
    name: str
    arguments: str


class _User(NamedTuple):
    uid: int
    gid: int
    home: str


def instructions(text: str) -> Iterator[Instruction]:
    """Those of a Dockerfile, without its comments."""
    first, joined = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        first = first or number
        joined += line.removesuffix("\\")
        if not line.endswith("\\"):
            name, _, arguments = joined.strip().partition(" ")
            yield Instruction(first, name, arguments.strip())
            first, joined = 0, ""


class Image:
    """What a Dockerfile makes of a folder; its commands run until it is closed."""

    def __init__(self, folder: Path, context: Path, *, hosts: Sequence[str] = ()) -> None:
        """Mount the overlay; nothing is built yet.

        Args:
            folder: for what is written.
            context: the folder with the Dockerfile and what it copies.
            hosts: names that mean this machine there.
        """
        assert os.geteuid() == 0, "root is needed, for the users of an image and for its mounts"
        self.context = context
        self._root = folder / "root"
        #: What was written, seen from outside.
        self.written = folder / "upper"
        self._copied = folder / "copied"
        for one in (self._root, self.written, self._copied, folder / "work"):
            one.mkdir(parents=True)
        self._environment = {"PATH": _PATH}
        self._directory, self._user = "/", "root"
        #: What ``CMD`` starts.
        self.cmd: list[str] = []
        mount = ["unshare", "--mount", "--propagation", "private", "sh", "-e", "-c", _MOUNT, "sh", str(folder)]
        mount.append(" ".join(hosts))
        self._mounts = Process("the overlay", mount, folder / "mounts.log")
        self._mounts.wait_until(lambda: "mounted" in self._mounts.output(), 30)

    def build(self) -> None:
        """Run the Dockerfile.

        Raises:
            CannotRun: an instruction cannot be run here, or fails.
        """
        for one in instructions((self.context / "Dockerfile").read_text()):
            run = getattr(self, f"_do_{one.name.lower()}", None)
            try:
                if run is None:
                    raise CannotRun("no such instruction is known here")
                run(one.arguments)
            except CannotRun as error:
                raise CannotRun(f"Dockerfile:{one.line}: {one.name} {one.arguments}\n{error}") from None

    def command(self, words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
        """What starts a command in the image, as its user and in its folder, and becomes it.

        Args:
            words: program and arguments.
            environment: beside that of the image; nothing of this process's.
        """
        user = self._known_user(self._user)
        values = {"HOME": user.home, **self._environment, **environment}
        return [
            "nsenter", f"--mount=/proc/{self._mounts.pid}/ns/mnt", "chroot", str(self._root),
            # A change of user makes the kernel forget that the process is to end with its parent.
            "setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "--pdeathsig=TERM",
            "env", "--ignore-environment", f"--chdir={self._directory}", *(f"{k}={v}" for k, v in values.items()),
            *words,
        ]  # fmt: skip

    def close(self) -> None:
        """Unmount it, once its processes have ended."""
        self._mounts.stop()

    def _known_user(self, name: str) -> _User:
        # As /etc/passwd has it there.
        file = self.written / "etc" / "passwd"
        for line in (file if file.exists() else Path("/etc/passwd")).read_text().splitlines():
            found, _, uid, gid, _, home, _ = line.split(":")
            if found == name:
                return _User(int(uid), int(gid), home)
        raise CannotRun(f"there is no user {name}")

    def _execute(self, *words: str) -> None:
        given = {name: value for name, value in os.environ.items() if _FOR_BUILDING.fullmatch(name)}
        done = subprocess.run(
            self.command(words, given), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise CannotRun(f"it ended with status {done.returncode}: {done.stdout[-3000:]}")

    def _do_from(self, arguments: str) -> None:
        if not re.fullmatch(r"python:\d+\.\d+(-slim)?", arguments):
            raise CannotRun("only an image of Python's has something here that stands for it")
        base = Path(sys.base_prefix)
        # The image's users run it, too.
        self._execute("chmod", "a+rx", *map(str, base.parents))
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self._execute(str(base / "bin" / name), "-m", "venv", _PYTHON)

    def _do_env(self, arguments: str) -> None:
        self._environment |= dict(word.split("=", 1) for word in shlex.split(arguments))

    def _do_run(self, arguments: str) -> None:
        if arguments.startswith(("[", "--", "<<")):
            raise CannotRun("only a command for the shell is known here")
        self._execute("sh", "-c", arguments)

    def _do_workdir(self, arguments: str) -> None:
        self._directory = str(PurePosixPath(self._directory, arguments))
        self._execute_in_root("mkdir", "-p", self._directory)

    def _execute_in_root(self, *words: str) -> None:
        directory, user = self._directory, self._user
        self._directory, self._user = "/", "root"
        try:
            self._execute(*words)
        finally:
            self._directory, self._user = directory, user

    def _do_copy(self, arguments: str) -> None:
        words = shlex.split(arguments)
        owner = words.pop(0).removeprefix("--chown=") if words[0].startswith("--chown=") else "root"
        *sources, target = words
        if any(source.startswith("--") for source in sources):
            raise CannotRun("only --chown is known here")
        if target != "." and not target.endswith("/"):
            raise CannotRun("only a folder is known here as the target: . or a path that ends in /")
        user = self._known_user(owner)
        for child in self._copied.iterdir():
            shutil.rmtree(child) if child.is_dir() else child.unlink()
        taken = self._taken(sources)
        if not taken:
            raise CannotRun("nothing is there to be copied")
        for file, place in taken.items():
            there = self._copied / place
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.context / file, there)
        subprocess.run(["chown", "-R", f"{user.uid}:{user.gid}", *self._copied.iterdir()], check=True)  # noqa: S607
        names = [f"/mnt/{child.name}" for child in self._copied.iterdir()]
        destination = str(PurePosixPath(self._directory, target))
        self._execute_in_root("mkdir", "-p", destination)
        self._execute_in_root("cp", "--archive", "--target-directory", destination, *names)

    def _taken(self, sources: Sequence[str]) -> dict[str, str]:
        """The files of the context that are copied, and where each is put below the target."""
        ignored = [*_patterns(self.context / ".dockerignore")]
        taken = {}
        for path in sorted(self.context.rglob("*")):
            file = path.relative_to(self.context)
            parts = [str(file), *map(str, file.parents)]
            if not path.is_file() or any(one.fullmatch(part) for one in ignored for part in parts):
                continue
            for source in sources:
                if source == str(file):
                    taken[str(file)] = file.name
                elif source in parts:
                    taken[str(file)] = str(file.relative_to(source))
        return taken

    def _do_user(self, arguments: str) -> None:
        self._known_user(arguments)
        self._user = arguments

    def _do_cmd(self, arguments: str) -> None:
        if not arguments.startswith("["):
            raise CannotRun("a shell before the program would keep SIGTERM from it")
        self.cmd = json.loads(arguments)


def _patterns(file: Path) -> Iterator[re.Pattern[str]]:
    """The patterns of a ``.dockerignore``, each for a path or a folder above it."""
    for number, line in enumerate(file.read_text().splitlines() if file.exists() else [], 1):
        pattern = line.strip().strip("/")
        if not pattern or pattern.startswith("#"):
            continue
        if re.search(r"[!\[\]\\]", pattern):
            raise CannotRun(f".dockerignore:{number}: {line} is not known here")
        parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
        meanings = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
        yield re.compile("".join(meanings.get(part) or re.escape(part) for part in parts))
