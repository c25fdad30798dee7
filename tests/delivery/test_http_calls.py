"""Calls of SparkPost's API: full ones, several at the same time, and what becomes of them when something breaks in."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import FrameType
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from congressy_mailer import outbox, send_bulk, throttling
from congressy_mailer.broker import sending
from congressy_mailer.delivery import call_sizes
from congressy_mailer.delivery.slice import Delivery
from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.models import Batch, Message, State
from congressy_mailer.testing.local_sparkpost import ApiRequest, WholeSparkPost
from testbed.processes import Process, child_processes
from tests.conftest import wait_for
from tests.support.mails import deliver, deliver_slice, queue, queue_batch, states
from tests.support.scripted_https import Answer, Request, ScriptedHttps

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]

BACKEND = "congressy_mailer.sparkpost.backend.EmailBackend"
TRANSPORTS = {"http": {"BACKEND": BACKEND}}

#: The first call of a batch has as many mails as SLICE_SIZE, and each that follows four times as many.
GROWING = [100, 400, 1600, 2000]


def accept(request: Request) -> Answer:
    count = len(request.json["recipients"])
    return Answer(body={"results": {"id": "1166", "total_accepted_recipients": count, "total_rejected_recipients": 0}})


@pytest.fixture
def api(sparkpost_api: ScriptedHttps, settings: Any, published: list[str]) -> ScriptedHttps:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "TRANSPORTS": TRANSPORTS}
    sparkpost_api.script = accept
    return sparkpost_api


@pytest.fixture
def five_at_a_time() -> Iterator[None]:
    """As in a worker that runs two tasks at the same time, which share the ten connections."""
    throttling.share_connections(2)
    yield
    throttling.share_connections(0)


def states_and_crashes() -> Counter[tuple[str, int]]:
    return Counter(Message.objects.values_list("state", "crashes"))


def sizes(requests: list[Any]) -> list[int]:
    return [len(request.json["recipients"]) for request in requests]


def call_was_found() -> bool:
    """Whether what a killed process held is known to be nobody's; another sweep looks if not."""
    if Message.objects.filter(crashes=1).exists():
        return True
    sending.publish_sweep()
    return False


def test_calls_grow_to_two_thousand_and_a_kill_in_the_midst_of_one_loses_and_repeats_nothing(
    local_sparkpost: WholeSparkPost, start_worker: Callable[..., Process], settings: Any
) -> None:
    """A worker with the default settings, and SparkPost as it is."""
    options = {
        "TRANSPORTS": TRANSPORTS,
        "SPARKPOST_API_KEY": local_sparkpost.account.key,
        "SPARKPOST_API_HOST": local_sparkpost.api.address,
    }
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, **options}
    worker = start_worker(
        "-c", "1", MAILER_TEST_OPTIONS=json.dumps(options), MAILER_TEST_SWEEP_INTERVAL_SECONDS="120",
        **local_sparkpost.environment(),
    )  # fmt: skip
    made: list[int] = []

    def count(request: ApiRequest) -> None:
        if request.path == "/transmissions":
            made.append(len(json.loads(request.body)["recipients"]))

    local_sparkpost.api.script = count
    # Some more: on a busy machine the time of a slice may be over in the midst of a call.
    large = sum(GROWING) + 1000
    queue_batch(large, using="http")
    wait_for(lambda: sum(made) >= large, 240, f"all calls (now: {made})")
    assert max(made) == GROWING[-1]

    killed: list[int] = []

    def kill_once(request: ApiRequest) -> str | None:
        if killed or request.path != "/transmissions":
            return None
        killed.extend(child_processes(worker.pid))
        for child in killed:
            os.kill(child, signal.SIGKILL)
        # Nobody has any of it.
        return "hang up"

    local_sparkpost.api.script = kill_once
    small = send_bulk((f"eva{number}@example.com" for number in range(150)), subject="Olá", message="x", using="http")
    wait_for(lambda: bool(killed), 60, "the kill")
    wait_for(call_was_found, 60, "a sweep that finds what the killed process held")
    wait_for(
        lambda: small.messages.filter(state=State.SENT).count() == 150,
        120,
        f"the end of all mails ({states_and_crashes()})",
    )
    assert states_and_crashes() == {(State.SENT, 0): large + 150 - GROWING[0], (State.SENT, 1): GROWING[0]}
    arrived = Counter(mail.recipients[0] for mail in local_sparkpost.mailbox)
    assert set(arrived.values()) == {1}
    assert len(arrived) == large + 150


def test_a_batch_whose_slices_are_short_comes_to_large_calls_as_well(api: ScriptedHttps, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "SLICE_SIZE": 10, "TIME_SLICE": timedelta(seconds=60)}
    batch = queue_batch(150, using="http")
    delivery: Delivery | None = None

    def script(request: Request) -> Answer:
        assert delivery is not None
        # The time is over as soon as something was sent.
        delivery.deadlines.end_slice()
        return accept(request)

    api.script = script
    while Message.objects.filter(state=State.QUEUED).exists():
        delivery = Delivery(outbox.new_claim_token("task"))
        delivery.run_batch(batch.id, batch.generation)
    assert sizes(api.requests) == [10, 40, 100]


def test_a_call_has_as_many_as_there_was_time_for() -> None:
    batch = Batch().pk
    call_sizes.observe(batch, 100, 0, 2000)
    assert call_sizes.next_size(batch) == 400
    call_sizes.observe(batch, 400, 90, 2000)
    assert call_sizes.next_size(batch) == 310
    # Less than there was room for: there are no more.
    call_sizes.observe(batch, 7, 0, 2000)
    assert call_sizes.next_size(batch) == 310
    call_sizes.observe(batch, 310, 309, 2000)
    assert call_sizes.next_size(batch) == 155
    call_sizes.observe(batch, 155, 155, 2000)
    assert call_sizes.next_size(batch) == 100
    for _ in range(10):
        call_sizes.observe(batch, call_sizes.next_size(batch), 0, 2000)
    assert call_sizes.next_size(batch) == 2000


@pytest.mark.usefixtures("five_at_a_time")
def test_single_mails_are_called_for_at_the_same_time(api: ScriptedHttps) -> None:
    together = threading.Barrier(5)

    def script(request: Request) -> Answer:
        together.wait(60)
        return accept(request)

    api.script = script
    deliver(queue(10, using="http"))
    assert states_and_crashes() == {(State.SENT, 0): 10}
    assert api.connections == 5


@pytest.mark.usefixtures("five_at_a_time")
def test_where_others_have_connections_fewer_calls_are_made_at_the_same_time(api: ScriptedHttps, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "MAX_CONNECTIONS": 3}
    others = [throttling.connection_slot("http") for _ in range(2)]
    deliver(queue(4, using="http"))
    assert states_and_crashes() == {(State.SENT, 0): 4}
    assert api.connections == 1
    last = throttling.connection_slot("http")
    assert last.acquired
    ids = queue(1, using="http")
    deliver(ids)
    # It is put back, and asks again.
    assert states(ids) == [State.QUEUED]
    for slot in (*others, last):
        slot.release()


@pytest.mark.usefixtures("five_at_a_time")
def test_of_calls_at_the_same_time_each_has_its_own_end(api: ScriptedHttps) -> None:
    together = threading.Barrier(5)

    def script(request: Request) -> Answer | None:
        together.wait(60)
        (recipient,) = request.json["recipients"]
        address = recipient["address"]["email"]
        if address == "1@example.com":
            return Answer(422, {"errors": [{"code": "1300", "message": "invalid data"}]})
        if address == "2@example.com":
            return Answer(429, {"errors": [{"message": "Too many requests"}]}, {"Retry-After": "60"})
        return None if address == "3@example.com" else accept(request)

    api.script = script
    ids = [key for number in range(7) for key in queue(to=f"{number}@example.com", using="http")]
    with pytest.raises(TransportUnavailable):
        deliver(ids)
    found = {message.to[0].partition("@")[0]: (message.state, message.crashes) for message in Message.objects.all()}
    assert found == {
        "0": (State.SENT, 0), "1": (State.FAILED, 0), "2": (State.QUEUED, 0), "3": (State.DEFERRED, 1),
        "4": (State.SENT, 0), "5": (State.QUEUED, 0), "6": (State.QUEUED, 0),
    }  # fmt: skip
    assert len(api.requests) == 5


def test_a_server_that_drips_leaves_its_mails_in_doubt_within_the_lease(api: ScriptedHttps, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "SPARKPOST_API_TIMEOUT": timedelta(milliseconds=250)}

    def drip(request: Request) -> Answer:
        return Answer(body=b" " * 5000, drip=0.02)

    api.script = drip
    batch = queue_batch(20, using="http")
    delivery = Delivery(outbox.new_claim_token("task"))
    with pytest.raises(TransportUnavailable, match="cannot be reached"):
        delivery.run_batch(batch.id, batch.generation)
    assert states_and_crashes() == {(State.DEFERRED, 1): 20}
    # While the claim held: nobody else could have taken them.
    assert not delivery.deadlines.extension_is_due
    assert len(api.requests) == 1


@pytest.fixture
def time_limit() -> Iterator[Callable[[], None]]:
    """Have Celery's time limit be over, and wait until the main thread knows."""
    raised = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        raised.set()
        raise SoftTimeLimitExceeded

    def limit() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert raised.wait(60)

    previous = signal.signal(signal.SIGUSR1, handle)
    yield limit
    signal.signal(signal.SIGUSR1, previous)


@pytest.mark.usefixtures("five_at_a_time")
def test_the_time_limit_in_the_midst_of_calls_repeats_nothing(
    api: ScriptedHttps, time_limit: Callable[[], None]
) -> None:
    together = threading.Barrier(3, time_limit)

    def script(request: Request) -> Answer:
        together.wait(60)
        return accept(request)

    api.script = script
    ids = queue(3, using="http")
    with pytest.raises(SoftTimeLimitExceeded):
        deliver(ids)
    assert states_and_crashes() == {(State.SENT, 0): 3}
    assert len(api.requests) == 3


def test_the_time_limit_in_the_midst_of_a_shared_call_repeats_nothing(
    api: ScriptedHttps, time_limit: Callable[[], None], settings: Any
) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "SLICE_SIZE": 10}

    def script(request: Request) -> Answer:
        time_limit()
        return accept(request)

    api.script = script
    batch = queue_batch(25, using="http")
    with pytest.raises(SoftTimeLimitExceeded):
        deliver_slice(batch)
    assert states_and_crashes() == {(State.SENT, 0): 10, (State.QUEUED, 0): 15}
    assert sizes(api.requests) == [10]
