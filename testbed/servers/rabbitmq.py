"""A RabbitMQ of the tests' own."""

from __future__ import annotations

import signal
import socket
from contextlib import closing

from kombu import Connection

from testbed.processes import Process, free_port
from testbed.servers.server import HOST, Server


class RabbitMQ(Server):
    """A RabbitMQ with an ``epmd`` of its own, the small server by which Erlang's nodes find each other."""

    name = "RabbitMQ"
    package = "rabbitmq-server"
    account = "rabbitmq"
    programs = ("rabbitmq-server", "epmd")
    # Debian's program on the PATH is another one, which runs as its own user in its own directory.
    folders = ("/usr/lib/rabbitmq/bin",)

    _epmd: Process | None = None
    _epmd_port: int
    _distribution_port: int
    _node: str

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{HOST}:{self.port}//"

    def stop(self) -> None:
        super().stop()
        self._stop_epmd()

    def kill(self) -> None:
        super().kill()
        self._stop_epmd()

    def _stop_epmd(self) -> None:
        if self._epmd is not None:
            self._epmd.stop()

    def _prepare(self) -> None:
        self._epmd_port = free_port()
        self._distribution_port = free_port()
        self._node = f"mailer-{self._distribution_port}@localhost"
        (self.directory / "enabled_plugins").write_text("[].\n")

    def _fill(self) -> None:
        """Nothing: its virtual host is there."""

    def _start(self) -> None:
        # Where none answers, the node starts one that outlives it.
        epmd = [self._program("epmd"), "-address", HOST, "-port", str(self._epmd_port)]
        self._epmd = self._spawn("epmd", epmd, signal.SIGTERM)
        self._epmd.wait_until(self._epmd_answers, 20)
        (self.directory / "rabbitmq.conf").write_text(f"listeners.tcp.local = {HOST}:{self.port}\n")
        super()._start()

    def _command(self) -> list[str]:
        return [self._program("rabbitmq-server")]

    def _environment(self) -> dict[str, str]:
        directory = str(self.directory)
        return {
            # Its cookie is in HOME.
            **super()._environment(),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONF_ENV_FILE": f"{directory}/none",
            "RABBITMQ_CONFIG_FILE": f"{directory}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{directory}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{directory}/data",
            "RABBITMQ_LOG_BASE": f"{directory}/log",
            "RABBITMQ_LOGS": "-",
            # It becomes the node instead of waiting for it, so that the node is what we start and end.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _answers(self) -> bool:
        try:
            with closing(Connection(self.url, connect_timeout=2)) as connection:
                connection.connect()
                name: str = connection.connection.server_properties["cluster_name"]
                return name.split("@")[0] == self._node.split("@")[0]
        except OSError:
            return False

    def _epmd_answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self._epmd_port)) == 0
