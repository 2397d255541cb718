"""Who consumes from a queue."""

from __future__ import annotations

from pika.exceptions import ChannelClosedByBroker

from benchmarks.speed.broker import channel


def consumers(url: str, queue: str) -> int:
    """How many consume from it now; 0 when it does not exist."""
    with channel(url) as open_channel:
        try:
            return int(open_channel.queue_declare(queue, passive=True).method.consumer_count)
        except ChannelClosedByBroker as error:
            if error.reply_code != 404:
                raise
            return 0
