"""What the handlers did, one line for each, in a file that the demo reads."""

import json
import os
import time

from domain_events import DomainEvent


def note(receiver: str, event: DomainEvent, what: str) -> None:
    """Append a line. One write() to a file opened for appending: the lines of several processes do not mix."""
    path = os.environ.get("SHOP_LEDGER")
    if not path:
        return
    line = json.dumps({"at": time.time(), "receiver": receiver, "order": event.domain_object_id, "what": what})
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode() + b"\n")
    finally:
        os.close(file)
