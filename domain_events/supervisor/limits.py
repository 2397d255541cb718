"""How many descriptors we may have open: many receivers need more than the 1024 that a shell gives."""

from __future__ import annotations

import logging
import resource

logger = logging.getLogger(__name__)

_FOR_EACH_CHILD = 5  # its status, its stacks, its log, its pidfd; one to spare
_FOR_OURSELVES = 128  # the application's, the control socket's clients, a loader's


def allow_children(count: int) -> None:
    """Raise the soft limit as far as so many children need, and the hard limit lets us.

    Not to the hard limit: it may be a billion, and there are programs that try to close each of them.
    """
    needed = _FOR_OURSELVES + count * _FOR_EACH_CHILD
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        new = needed + needed // 4 if hard == resource.RLIM_INFINITY else min(needed + needed // 4, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (new, hard))
        if new < needed:
            logger.warning("%d children need %d descriptors, and the hard limit is %d (ulimit -Hn)", count, needed, new)
