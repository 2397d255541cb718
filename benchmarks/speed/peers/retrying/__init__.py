"""Programs of the peers that can retry, each as its documentation recommends for at-least-once.

Each module is the application of one peer: `send` sends events that are numbers, `COMMAND` are the arguments for Python
that run its consumer. Each event fails at its first call and asks to be called again after `notes.DELAY`.

    python -m benchmarks.speed.peers.retrying PEER consume
    python -m benchmarks.speed.peers.retrying PEER send FIRST LAST RATE    RATE events/s; 0: as fast as it can
"""
