#!/usr/bin/env python3
"""What receivers weigh, alone and forked, in a trivial application and in a Django project; an idle master's cost.

PSS: each page counts in parts, one for each process that has it (proc(5)). Python's own libraries are shared with every
Python on the machine, this one among them.

Needs a broker: bin/broker run -- .venv/bin/python benchmarks/memory.py
"""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
DJANGO_CODE = f"""
import django.contrib.admin.sites, django.core.mail, django.forms, django.test.client, django.views.generic
import shop.urls
from domain_events import Receiver
from shop.models import Order

receiver = Receiver()
for number in range({RECEIVERS}):
    receiver.register(lambda event: Order.objects.count(), f"benchmark-{{number}}", ["benchmark.#"], durable=False)
"""
TRIVIAL_CODE = f"""
from domain_events import Receiver

receiver = Receiver()
for number in range({RECEIVERS}):
    receiver.register(lambda event: None, f"benchmark-{{number}}", ["benchmark.#"], durable=False)
"""
ALONE_CODE = """
from domain_events import Receiver, child_started

receiver = Receiver()
receiver.register(lambda event: None, "benchmark-0", ["benchmark.#"], durable=False)
child_started(lambda: print("starts", flush=True))
receiver.start_consuming()
"""
SETTLED = 2.0  # seconds after the last child has said that it consumes
IDLE = 20.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    title: str
    module: str
    env: dict[str, str]


TRIVIAL = Application(title="a trivial application", module="trivial", env={})
DJANGO = Application(
    title=f"a Django project with {len(APPS) + 2} apps",
    module="domain_events.django",
    env={"DJANGO_SETTINGS_MODULE": "settings"},
)


def main() -> int:
    if "AMQP_URL" not in os.environ:
        print(__doc__)
        return 64
    print("PSS, MiB. A further receiver: what 8 of them weigh more than 1, masters included, divided by 7.\n")
    with tempfile.TemporaryDirectory() as folder:
        make_applications(Path(folder))
        weigh_alone(folder)
        for application in (TRIVIAL, DJANGO):
            weigh(folder, application)
    return 0


def weigh_alone(folder: str) -> None:
    for _ in range(2):  # the first one compiles what it imports, as an installation does once
        process = start(folder, [sys.executable, "alone.py"], {})
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(SETTLED)
        weight = pss(process.pid)
        stop([process])
    print(f"Receiver.start_consuming() alone:       {weight:6.1f}\n")


def weigh(folder: str, application: Application) -> None:
    stop([supervise(folder, application, "--only", "benchmark-0", count=1)])  # compiles
    single = supervise(folder, application, "--only", "benchmark-0", count=1)
    [child] = children(single.pid)
    one = pss(single.pid) + pss(child)
    # As if something without memory had forked it before the import.
    unshared = rss_as_alone(child)
    stop([single])

    together = supervise(folder, application, "--spawn-rate", "100", count=RECEIVERS)
    forked = [pss(pid) for pid in children(together.pid)]
    private = [_megabytes(pid, "Private_Dirty") for pid in children(together.pid)]
    everything = pss(together.pid) + sum(forked)
    cpu, switches = idle(together.pid)
    stop([together])
    print(f"{application.title}:")
    print(f"  a master and one receiver:            {one:6.1f}")
    print(f"  a further receiver:                   {(everything - one) / (RECEIVERS - 1):6.1f}")
    print(f"    of it written to by it alone:       {statistics.fmean(private):6.1f}")
    print(f"    imported after the fork:            {unshared:6.1f}")
    print(f"  {RECEIVERS} receivers:                          {sum(forked):6.1f}, with the master {everything:.1f}")
    print(f"  each of {RECEIVERS}, its share of all included: {statistics.fmean(forked):6.1f}")
    print(f"  idle master over {IDLE:g} s: {cpu:.3f} % of a core, {switches / IDLE:.2f} wake-ups a second\n")


def make_applications(folder: Path) -> None:
    (folder / "shop").mkdir()
    files = {
        "alone": ALONE_CODE,
        "trivial": TRIVIAL_CODE,
        "settings": SETTINGS,
        "shop/__init__": "",
        "shop/urls": URLS,
        "shop/models": MODELS,
        "shop/receivers": DJANGO_CODE,
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)


def supervise(folder: str, application: Application, *flags: str, count: int) -> subprocess.Popen[str]:
    """A master of which so many receivers consume, and have settled."""
    command = [sys.executable, "-m", "domain_events.cli.supervisor", application.module, *flags]
    process = start(folder, command, application.env)
    wait_consuming(process, count)
    time.sleep(SETTLED)
    return process


def start(folder: str, command: Sequence[str], env: dict[str, str]) -> subprocess.Popen[str]:
    changed = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{folder}",
        # What is compiled at each start takes memory that an installed package does not.
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": f"{folder}/compiled",
        "DOMAIN_EVENT_BROKER": os.environ["AMQP_URL"],
        **env,
    }
    return subprocess.Popen(
        command, cwd=folder, env=changed, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def wait_consuming(process: subprocess.Popen[str], count: int) -> None:
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


def stop(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        process.wait(60)


if __name__ == "__main__":
    sys.exit(main())
