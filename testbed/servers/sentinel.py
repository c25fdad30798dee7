"""A Redis with a replica and a Sentinel that puts the replica in its place."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

from congressy_mailer.testing.local_sparkpost.startable import Startable
from testbed.processes import Process, ProcessError, free_port
from testbed.redis_server import EmbeddedRedis, find_redis_server
from testbed.servers.server import HOST

_START_SECONDS = 20.0
_MASTER_NAME = "congressy"
_PASSWORD = "of the Sentinel alone"
#: How long the master has been silent when it is given up.
_DOWN_AFTER_MILLISECONDS = 500


class RedisUnderSentinel(Startable):
    """Two Redis and one Sentinel; used as a context manager, it starts on entry and is gone on exit."""

    def __init__(self) -> None:
        self.master = EmbeddedRedis()
        self.replica = EmbeddedRedis()
        self.port = 0
        self._directory = Path(tempfile.mkdtemp(prefix="sentinel-"))
        self._sentinel: Process | None = None

    @property
    def url(self) -> str:
        """Address of the Sentinel, as Celery wants it."""
        return f"sentinel://{HOST}:{self.port}/0"

    @property
    def transport_options(self) -> dict[str, Any]:
        """What Celery has to know beside the address."""
        return {"master_name": _MASTER_NAME, "sentinel_kwargs": {"password": _PASSWORD}}

    def current_master(self) -> int:
        """Port of the Redis that the Sentinel sends redis-py to."""
        return int(self._state()["port"])

    def start(self) -> None:
        self.master.start()
        self.replica.start()
        with redis.Redis(HOST, self.master.port) as master, redis.Redis(HOST, self.replica.port) as replica:
            # By default a master waits 5 s for more replicas before it sends the first its data.
            master.config_set("repl-diskless-sync-delay", 0)
            replica.replicaof(HOST, self.master.port)
            # A Sentinel that starts earlier learns of the replica 10 s later.
            deadline = time.monotonic() + _START_SECONDS
            while replica.info("replication")["master_link_status"] != "up":
                if time.monotonic() > deadline:
                    raise ProcessError("The replica did not reach its master.")
                time.sleep(0.02)
        self.port = free_port()
        configuration = self._directory / "sentinel.conf"
        configuration.write_text(
            f"port {self.port}\n"
            f"bind {HOST}\n"
            f"dir {self._directory}\n"
            f'requirepass "{_PASSWORD}"\n'
            f"sentinel monitor {_MASTER_NAME} {HOST} {self.master.port} 1\n"
            f"sentinel down-after-milliseconds {_MASTER_NAME} {_DOWN_AFTER_MILLISECONDS}\n"
            f"sentinel failover-timeout {_MASTER_NAME} 2000\n"
        )
        command = [find_redis_server(), str(configuration), "--sentinel"]
        self._sentinel = Process("Sentinel", command, self._directory / "sentinel.log")
        self._sentinel.wait_until(self._knows_both, _START_SECONDS)

    def _knows_both(self) -> bool:
        try:
            return int(self._state()["num-slaves"]) == 1
        except redis.ConnectionError:
            return False

    def _state(self) -> dict[str, Any]:
        # The command get-master-addr-by-name names the new master already while the failover is under way.
        with redis.Redis(HOST, self.port, password=_PASSWORD) as client:
            state: dict[str, Any] = client.sentinel_master(_MASTER_NAME)
        return state

    def close(self) -> None:
        if self._sentinel is not None:
            self._sentinel.kill()
        self.replica.close()
        self.master.close()
        shutil.rmtree(self._directory, ignore_errors=True)
