"""A real PostgreSQL for tests: private, on a Unix socket, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.waiting import wait_until

WHERE = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """Where a database is."""

    folder: str
    user: str = "postgres"
    name: str = "postgres"

    @property
    def url(self) -> str:
        """For libpq and psycopg."""
        return f"postgresql:///{self.name}?host={self.folder}&user={self.user}"

    @property
    def django(self) -> dict[str, str]:
        """For an entry of Django's DATABASES."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": self.folder,
            "USER": self.user,
            "NAME": self.name,
        }


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server of this session with the empty database `postgres`.

    Without PostgreSQL on the machine the test fails: a skip would hide that nothing was tried.
    """
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="de-pg-"))
    try:
        with _server(programs, folder) as database:
            yield database
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url(postgres: Postgres) -> str:
    """The URL of `postgres`."""
    return postgres.url


@contextlib.contextmanager
def _server(programs: Path, folder: Path) -> Iterator[Postgres]:
    # The end of the test run is the end of the server, whatever ends it: SIGQUIT is its immediate shutdown.
    prefix = ["setpriv", "--pdeathsig", "QUIT"]
    if os.geteuid() == 0:  # the server refuses to run as root
        user = _unprivileged()
        os.chown(folder, user.pw_uid, user.pw_gid)
        prefix += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    data, log = folder / "data", folder / "log"
    choices = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    made = subprocess.run(
        [*prefix, str(programs / "initdb"), "-D", str(data), *choices],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if made.returncode:
        pytest.fail(f"initdb failed: {made.stderr.strip()}", pytrace=False)
    # No TCP, so no port to share; nothing in it has to outlive a power cut.
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(folder),
        "fsync": "off",
        "shared_buffers": "16MB",
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                *prefix,
                programs / "postgres",
                "-D",
                data,
                *(f"--{key}={value}" for key, value in settings.items()),
            ],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    database = Postgres(folder=str(folder))

    def answers() -> bool:
        if process.poll() is not None:
            pytest.fail(f"PostgreSQL did not start:\n{log.read_text(errors='replace')}", pytrace=False)
        try:
            psycopg.connect(database.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        wait_until(answers, 60, "PostgreSQL takes connections", pause=0.05)
        yield database
    finally:
        process.send_signal(signal.SIGINT)  # the fast shutdown, which does not wait for clients
        try:
            process.wait(30)
        finally:
            process.kill()


def _programs() -> Path:
    """The folder of `initdb` and `postgres`, which Debian keeps out of PATH; the newest of several."""
    found = [
        folder
        for pattern in WHERE
        for folder in sorted(Path("/").glob(pattern.lstrip("/")), key=_version, reverse=True)
        if (folder / "initdb").exists() and (folder / "postgres").exists()
    ]
    if not found and (initdb := shutil.which("initdb")):
        found = [Path(initdb).resolve().parent]
    if not found:
        pytest.fail(
            "PostgreSQL is not installed: apt-get install postgresql (bin/test does it as root)",
            pytrace=False,
        )
    return found[0]


def _version(folder: Path) -> list[int]:
    return [int(part) for part in folder.parent.name.split("-")[-1].split(".") if part.isdigit()]


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.fail("PostgreSQL does not run as root, and there is neither a user postgres nor nobody", pytrace=False)
