"""Queues and bindings that are not as the code wants them: found, shown, and changed without losing an event."""
