"""Bare pika, the fast way: a SelectConnection; acks after the handler, each by itself; confirms as they come."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pika

from benchmarks.speed.broker import EXCHANGE, PROPERTIES, body
from benchmarks.speed.sending import many
from benchmarks.speed.task import DEFAULT_PREFETCH, Counting, Task, run

if TYPE_CHECKING:
    from pika.channel import Channel

WINDOW = 1000


def consume(task: Task) -> None:
    counting = Counting(task)

    def on_message(
        channel: Channel, method: pika.spec.Basic.Deliver, _properties: pika.BasicProperties, message: bytes
    ) -> None:
        counting(json.loads(message)["data"])
        channel.basic_ack(method.delivery_tag)

    def on_channel(channel: Channel) -> None:
        channel.basic_qos(
            prefetch_count=task.prefetch or DEFAULT_PREFETCH,
            callback=lambda _frame: channel.basic_consume(task.queue, on_message),
        )

    _connection(task, on_channel).ioloop.start()


def publish_many(task: Task) -> None:
    channels: list[Channel] = []

    def on_channel(channel: Channel) -> None:
        def selected(_frame: object) -> None:
            channels.append(channel)
            connection.ioloop.stop()

        channel.confirm_delivery(lambda frame: sender.on_confirm(frame), selected)

    connection = _connection(task, on_channel)
    connection.ioloop.start()
    sender = _Pipeline(task, channels[0], connection)
    many(task, sender.send_all)
    connection.close()


class _Pipeline:
    """Keeps `WINDOW` events under way."""

    def __init__(self, task: Task, channel: Channel, connection: pika.SelectConnection) -> None:
        self._task = task
        self._channel = channel
        self._connection = connection
        self._sent = self._confirmed = self._wanted = 0

    def send_all(self, count: int) -> None:
        self._wanted += count
        self._send()
        while self._confirmed < self._wanted:
            self._connection.ioloop.start()

    def on_confirm(self, frame: pika.frame.Method[pika.spec.Basic.Ack]) -> None:
        assert isinstance(frame.method, pika.spec.Basic.Ack), frame
        # In order and cumulative, as they come from one queue.
        self._confirmed = max(self._confirmed, frame.method.delivery_tag)
        self._send()
        if self._confirmed == self._wanted:
            self._connection.ioloop.stop()

    def _send(self) -> None:
        while self._sent < self._wanted and self._sent - self._confirmed < WINDOW:
            self._channel.basic_publish(EXCHANGE, self._task.queue, body(self._task.queue), PROPERTIES)
            self._sent += 1


def _connection(task: Task, on_channel: Callable[[Channel], None]) -> pika.SelectConnection:
    def on_lost(_connection: pika.SelectConnection, error: BaseException) -> None:
        connection.ioloop.stop()
        if not isinstance(error, pika.exceptions.ConnectionClosedByClient):
            raise error

    connection = pika.SelectConnection(
        pika.URLParameters(task.url),
        on_open_callback=lambda opened: opened.channel(on_open_callback=on_channel),
        on_open_error_callback=on_lost,
        on_close_callback=on_lost,
    )
    return connection


if __name__ == "__main__":
    run({"consume": consume, "publish_many": publish_many})
