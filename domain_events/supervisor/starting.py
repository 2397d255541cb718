"""From options to a running master: broker, lock, receivers, and an exit code for each way to fail."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from functools import partial

# `sending`: a handler that imports it when it sends would have it in its own process, and not in the shared memory.
from domain_events import sending as sending
from domain_events.errors import ConfigurationError
from domain_events.handling import consume, prepare
from domain_events.registration import Registration
from domain_events.supervisor import master
from domain_events.supervisor.brokers import check_brokers, use_broker
from domain_events.supervisor.control_socket import ControlTaken
from domain_events.supervisor.exits import MasterExit
from domain_events.supervisor.http_plan import plan_http
from domain_events.supervisor.http_process import HttpService, Serve
from domain_events.supervisor.launch import HIDDEN_BROKER
from domain_events.supervisor.loading import channel_to_master
from domain_events.supervisor.loading import serve as be_loader
from domain_events.supervisor.lock import Lock, LockTaken
from domain_events.supervisor.options import Options, UsageError
from domain_events.supervisor.selection import select

logger = logging.getLogger(__package__)


def start(
    load: Callable[[], Sequence[Registration]],
    options: Options,
    *,
    title: str,
    boot: Callable[[], None] = lambda: None,
    out: Callable[[str], object] = print,
    serve: Serve | None = None,
) -> int:
    """Supervise what `load` finds, or only check it; returns the exit code. Main thread only.

    load: imports the application; raises ConfigurationError. Called once, with the lock held.
    title: what `ps` calls this master.
    boot: runs in each child before it consumes.
    out: takes the JSON of --check.
    serve: what the child of --http does; None: there is none here.
    """
    channel = channel_to_master(os.environ)
    if channel is not None:
        anew = partial(_load_anew, load, options)
        return be_loader(channel, anew, consume=consume, boot=boot, title=title, http=partial(_http, options, serve))
    try:
        plan = plan_http(options, os.environ, serve)
        use_broker(options.broker, options.broker_file, os.environ)
        if options.check:
            out(json.dumps(described(_chosen(load, options)), indent=2, ensure_ascii=False))
            # Not left to the end of the process, which gives up in silence: this is what we were asked for.
            if sys.stdout is not None:  # it is when we were started without one
                sys.stdout.flush()
            return MasterExit.CLEAN
        with closing(Lock(options.lock)) if options.lock else nullcontext() as lock:
            chosen = _chosen(load, options)
            return master.run(chosen, options, consume=consume, boot=boot, title=title, lock=lock, http=plan)
    except UsageError as error:
        logger.error("%s", error)
        return MasterExit.USAGE
    except (LockTaken, ControlTaken) as error:
        logger.error("%s", error)
        return MasterExit.LOCKED
    except ConfigurationError as error:
        logger.error("%s", error)
        return MasterExit.CONFIGURATION
    except Exception:
        # An error of ours, before the master could run: the exit code is a contract.
        logger.critical("the supervisor could not start", exc_info=True)
        return MasterExit.INTERNAL


def described(registrations: Sequence[Registration]) -> list[dict[str, object]]:
    """What --check prints."""
    return [
        {
            "name": registration.name,
            "binding_keys": list(registration.binding_keys),
            "handler": registration.handler_name,
            "max_retries": registration.policy.max_retries,
            "dead_letter": registration.dead_letter,
            "durable": registration.durable,
            "processes": registration.processes,
        }
        for registration in registrations
    ]


def _http(options: Options, serve: Serve | None) -> HttpService | None:
    plan = plan_http(options, os.environ, serve)
    return plan.service if plan is not None else None


def _load_anew(load: Callable[[], Sequence[Registration]], options: Options) -> tuple[Registration, ...]:
    broker = os.environ.pop(HIDDEN_BROKER, options.broker)
    use_broker(broker, options.broker_file, os.environ)
    return _chosen(load, options)


def _chosen(load: Callable[[], Sequence[Registration]], options: Options) -> tuple[Registration, ...]:
    chosen = select(load(), options)
    check_brokers(chosen)
    prepare(chosen)
    return chosen
