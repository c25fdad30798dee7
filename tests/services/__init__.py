"""Databases and brokers of the tests' own, as context managers.

For a Redis there is :class:`demo.embedded_redis.EmbeddedRedis`, which works the same way.
"""

from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL
from tests.services.rabbitmq import RabbitMQ
from tests.services.sentinel import RedisUnderSentinel
from tests.services.server import Server

__all__ = ["MariaDB", "PostgreSQL", "RabbitMQ", "RedisUnderSentinel", "Server"]
