"""How deeply JSON may nest: the same for every Python, for senders and receivers, with room on any thread's stack.

Python's own limit moves with sys.setrecursionlimit (3.11), and is too high for small stacks (3.12 and later): the
scanner, written in C, then runs over the end of the stack, and the process dies. Measured: DEEPEST needs less than
128 KiB, which is what musl gives to a thread.
"""

from __future__ import annotations

from itertools import accumulate

DEEPEST = 500
"""Arrays and objects within each other: half of Python's usual limit for calls, handlers walk through them too."""

_NO_MARKS = bytes(set(range(256)) - set(b'"[]{}'))
_STEPS = [1 if char in b"[{" else -1 if char in b"]}" else 0 for char in range(256)]


def nests_too_deeply(body: bytes) -> bool:
    """Whether arrays and objects lie more than DEEPEST deep in JSON; of what is no JSON, nearly so.

    Linear, and nearly always over at once: it is on the hot path.
    """
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return False
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = body.translate(None, _NO_MARKS).replace(b'""', b"")
    if b'"' in marks:  # brackets in strings
        marks = b"".join(marks.split(b'"')[::2])
    return max(accumulate(map(_STEPS.__getitem__, marks)), default=0) > DEEPEST
