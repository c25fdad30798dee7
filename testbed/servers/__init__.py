"""Databases and brokers of the tests' own, as context managers.

For a Redis there is :class:`testbed.redis_server.EmbeddedRedis`, which works the same way.
"""

from testbed.servers.mariadb import MariaDB
from testbed.servers.postgresql import PostgreSQL
from testbed.servers.rabbitmq import RabbitMQ
from testbed.servers.sentinel import RedisUnderSentinel
from testbed.servers.server import Server

__all__ = ["MariaDB", "PostgreSQL", "RabbitMQ", "RedisUnderSentinel", "Server"]
