"""A RabbitMQ of another Debian suite, in a folder of its own that its processes see as their root."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from private_broker.problem import SETUP, SYSTEM_PATH, Problem, say

# Where a broker's folder is inside.
MOUNTED = Path("/broker")
PUBLIC_MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PACKAGES = {"debootstrap": "/usr/sbin/debootstrap", "debian-archive-keyring": KEYRING}

# Everything is mounted in a namespace of its own: it is gone with its last process, however that ends.
_ENTER = """set -e
root=$1 folder=$2 inside=$3
shift 3
mount -t proc proc "$root/proc" 2>/dev/null || mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir -p "$root$inside"
mount --bind "$folder" "$root$inside"
exec chroot "$root" "$@"
"""
_ALONE = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def enter(folder: Path, root: str | None, argv: list[str]) -> list[str]:
    """`argv` as it runs in the userland `root`, with the broker's folder at MOUNTED; None: as it is."""
    if root is None:
        return argv
    return ["unshare", "--mount", "sh", "-c", _ENTER, "enter", root, str(folder), str(MOUNTED), *argv]


def provide_userland(suite: str) -> Path:
    """The root of this suite's userland with a RabbitMQ, made now if need be."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "domain-events-broker"
    root, ready = base / suite / "root", base / suite / "ready"
    if os.geteuid():
        raise Problem("only root can run one out of another Debian suite")
    if not ready.exists():
        if not shutil.which("apt-get", path=SYSTEM_PATH):
            raise Problem("this is no Debian or Ubuntu, where root could run one out of another Debian suite")
        root.parent.mkdir(parents=True, exist_ok=True)
        with _locked(base / f".lock-{suite}", f"waits: another process prepares Debian {suite}"):
            if not ready.exists():
                _make(suite, root)
                ready.write_text(f"{rabbitmq_home(root).name}\n")
    return root


def rabbitmq_home(root: Path) -> Path:
    """RabbitMQ's own folder, as a process inside sees it."""
    for home in sorted(root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*")):
        return Path("/") / home.relative_to(root)
    raise Problem(f"there is no RabbitMQ in {root}")


def mirror(system: Mapping[str, str]) -> str:
    """The mirror of Debian that apt is told to use; the public one where `system` (os-release(5)) is not Debian."""
    form = "$(REPO_URI)\t$(CODENAME)\t$(RELEASE)\t$(COMPONENT)"
    listed = _said("apt-get", "indextargets", "--format", form, "Created-By: Packages")
    for line in listed.splitlines():
        uri, *releases, component = line.split("\t")
        if system.get("ID") == "debian" and component == "main" and system.get("VERSION_CODENAME") in releases:
            return uri
    return PUBLIC_MIRROR


def proxies() -> dict[str, str]:
    """The proxies that apt is told to use, as environment; those of our own environment win."""
    found = {}
    for scheme in ("http", "https"):
        name = f"{scheme}_proxy"
        _, _, value = _said("apt-config", "shell", "PROXY", f"Acquire::{scheme}::Proxy").strip().partition("=")
        proxy = os.environ.get(name) or "".join(shlex.split(value))
        if proxy and proxy != "DIRECT":
            found[name] = proxy
    return found


def host_suite() -> str | None:
    """The Debian suite that this machine runs; None: it is no Debian."""
    system = _system()
    return system.get("VERSION_CODENAME") if system.get("ID") == "debian" else None


def _make(suite: str, root: Path) -> None:
    say(f"prepares RabbitMQ of Debian {suite}: 200 MB in {root}, one to three minutes (once) ...")
    needed = [package for package, file in PACKAGES.items() if not os.access(file, os.R_OK)]
    if needed:
        subprocess.run([SETUP, "packages", *needed], stdin=subprocess.DEVNULL, stdout=sys.stderr)
    _clear(root)
    log = root.parent / "prepare.log"
    log.unlink(missing_ok=True)
    downloads = root.parent / "debs"  # what an attempt that was cut off has fetched is not fetched again
    downloads.mkdir(exist_ok=True)
    include = ["--variant=minbase", "--include=rabbitmq-server", f"--cache-dir={downloads}"]
    # Unpacked first and set up in a second step: in between it learns that no service may start.
    first = ["debootstrap", "--foreign", "--force-check-gpg", f"--keyring={KEYRING}", *include, suite]
    _run([*_ALONE, *first, str(root), mirror(_system())], log, proxies())
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    _run([*_ALONE, "chroot", str(root), "/debootstrap/debootstrap", "--second-stage"], log, {})
    rabbitmq_home(root)
    for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / waste, ignore_errors=True)
    shutil.rmtree(downloads)


def _run(argv: list[str], log: Path, env: dict[str, str]) -> None:
    surroundings = {"PATH": SYSTEM_PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    with log.open("a") as out:
        print("$", shlex.join(argv), file=out, flush=True)
        try:
            status = subprocess.run(
                argv, env={**surroundings, **env}, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            ).returncode
        except OSError as error:
            raise Problem(f"cannot run {argv[0]}: {error.strerror}") from error
    if status:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        raise Problem(f"it could not be prepared ({log}):\n{last}")


def _clear(root: Path) -> None:
    """Removes what an attempt that was cut off has left; never through something that is mounted below."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    if below := [mount for mount in mounts if mount.startswith(f"{root}/")]:
        raise Problem(f"something is mounted at {below[0]}: unmount it first")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(root)


def _system() -> dict[str, str]:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release()
    return {}


def _said(*argv: str) -> str:
    """What a command of apt prints; nothing where there is none."""
    with contextlib.suppress(OSError):
        return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    return ""


@contextlib.contextmanager
def _locked(path: Path, waiting: str) -> Iterator[None]:
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(waiting)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
