"""The dead letters of a receiver: looked at, sent to it again, discarded. For a thread that has no I/O loop."""
