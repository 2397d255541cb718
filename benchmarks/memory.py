#!/usr/bin/env python3
"""What eight receivers of a real Django project cost: memory, forked and alone, and an idle master.

Needs a broker: bin/broker run -- .venv/bin/python benchmarks/memory.py
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECEIVERS = 8
APPS = (
    "django.contrib.admin",
    "django.contrib.admindocs",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.flatpages",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.redirects",
    "django.contrib.sessions",
    "django.contrib.sitemaps",
    "django.contrib.sites",
    "django.contrib.staticfiles",
    "django.contrib.syndication",
)
SETTINGS = f"""
SECRET_KEY = "benchmark"
INSTALLED_APPS = {[*APPS, "domain_events.django", "shop"]!r}
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3"}}}}
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
TEMPLATES = [{{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}}]
ROOT_URLCONF = "shop.urls"
USE_TZ = True
"""
URLS = """
from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
"""
# What a shop's receivers.py would have imported by way of its services.
MODELS = """
from django.contrib.auth.models import User
from django.db import models


class Order(models.Model):
    user = models.ForeignKey(User, on_delete=models.CASCADE)
"""
CODE = f"""
import django.contrib.admin.sites, django.core.mail, django.forms, django.test.client, django.views.generic
import shop.urls
from domain_events import Receiver
from shop.models import Order

receiver = Receiver()
for number in range({RECEIVERS}):
    receiver.register(lambda event: Order.objects.count(), f"benchmark-{{number}}", ["benchmark.#"], durable=False)
"""
IDLE = 20.0  # seconds


def main() -> int:
    if "AMQP_URL" not in os.environ:
        print(__doc__)
        return 64
    with tempfile.TemporaryDirectory() as folder:
        make_project(Path(folder))
        together = [start(folder, "--spawn-rate", "100")]
        try:
            wait_consuming(together[0], RECEIVERS)
            pids = [together[0].pid, *children(together[0].pid)]
            forked = [pss(pid) for pid in pids]
            cpu, switches = idle(together[0].pid)
        finally:
            stop(together)
        alone = []
        try:
            for number in range(RECEIVERS):
                alone.append(start(folder, "--only", f"benchmark-{number}"))
            for process in alone:
                wait_consuming(process, 1)
            # The children only: as if something without memory had forked each of them before the import.
            single = [rss_as_alone(pid) for process in alone for pid in children(process.pid)]
        finally:
            stop(alone)
    print(f"PSS, MiB, {RECEIVERS} receivers of a Django project with {len(APPS) + 2} apps:")
    print(f"  forked after the import (this library): {sum(forked[1:]):6.1f}, with the master {sum(forked):6.1f}")
    print(f"  import after the fork:                  {sum(single):6.1f}")
    print(f"  each further receiver:                  {max(forked[1:]):6.1f} against {max(single):.1f}")
    print(f"idle master over {IDLE:g} s: {cpu:.3f} % of a core, {switches / IDLE:.2f} wake-ups a second")
    return 0


def make_project(folder: Path) -> None:
    (folder / "shop").mkdir()
    files = {
        "settings": SETTINGS,
        "shop/__init__": "",
        "shop/urls": URLS,
        "shop/models": MODELS,
        "shop/receivers": CODE,
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)


def start(folder: str, *flags: str) -> subprocess.Popen[bytes]:
    env = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{folder}",
        "DJANGO_SETTINGS_MODULE": "settings",
        "DOMAIN_EVENT_BROKER": os.environ["AMQP_URL"],
    }
    command = [sys.executable, "-m", "domain_events.cli.supervisor", "domain_events.django", *flags]
    return subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.DEVNULL)


def wait_consuming(process: subprocess.Popen[bytes], count: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        titles = [Path(f"/proc/{pid}/cmdline").read_text() for pid in children(process.pid)]
        if sum("consuming" in title for title in titles) == count:
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"{count} receivers do not consume")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def pss(pid: int) -> float:
    return _megabytes(pid, "Pss")


def rss_as_alone(pid: int) -> float:
    """What it would weigh if the parent that it was forked from had not been there: what it shares with that alone."""
    text = Path(f"/proc/{pid}/smaps").read_text()
    total = 0.0
    for block in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", text):
        if not block:
            continue
        # Files are shared with everybody (their share stays Pss); the rest would be its own.
        is_file = len(block.splitlines()[0].split()) > 5 and block.splitlines()[0].split()[5].startswith("/")
        anonymous = int(re.findall(r"(?m)^Anonymous: +(\d+)", block)[0])
        rss = int(re.findall(r"(?m)^Rss: +(\d+)", block)[0])
        share = int(re.findall(r"(?m)^Pss: +(\d+)", block)[0])
        total += anonymous + (share * (rss - anonymous) / rss if is_file and rss else 0)
    return total / 1024


def _megabytes(pid: int, field: str) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.findall(rf"(?m)^{field}: +(\d+)", text)[0]) / 1024


def idle(pid: int) -> tuple[float, int]:
    """Percent of a core, and how often it woke up, while nothing happens."""
    time.sleep(2)
    ticks, switches = _usage(pid)
    time.sleep(IDLE)
    after, switches_after = _usage(pid)
    return (after - ticks) / os.sysconf("SC_CLK_TCK") / IDLE * 100, switches_after - switches


def _usage(pid: int) -> tuple[int, int]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    switches = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        text = Path(f"/proc/{pid}/task/{task}/status").read_text()
        switches += int(re.findall(r"(?m)^voluntary_ctxt_switches:\s+(\d+)", text)[0])
    return int(fields[11]) + int(fields[12]), switches


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        process.wait(60)


if __name__ == "__main__":
    sys.exit(main())
