"""A RabbitMQ of another Debian suite, in a folder of its own that its processes see as their root."""

from __future__ import annotations

from pathlib import Path

# Where a broker's folder is inside. Everything is mounted in a namespace that ends with the process.
MOUNTED = Path("/broker")

_ENTER = """set -e
root=$1 folder=$2 inside=$3
shift 3
mount -t proc proc "$root/proc" 2>/dev/null || mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir -p "$root$inside"
mount --bind "$folder" "$root$inside"
exec chroot "$root" "$@"
"""


def enter(folder: Path, root: str | None, argv: list[str]) -> list[str]:
    """`argv` as it runs in the userland `root`, with the broker's folder at MOUNTED; None: as it is."""
    if root is None:
        return argv
    return ["unshare", "--mount", "sh", "-c", _ENTER, "enter", root, str(folder), str(MOUNTED), *argv]
