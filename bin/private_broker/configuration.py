"""What the nodes of a broker are told: environment and files."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from private_broker import tls
from private_broker.login import LOOPBACK
from private_broker.problem import SYSTEM_PATH
from private_broker.userland import MOUNTED

CORE = ("rabbit", "rabbitmq_prelaunch")

# broker.json, and what it says of one node
Record = dict[str, Any]


def seen_folder(folder: Path, record: Record) -> Path:
    """The broker's folder as its processes see it."""
    return MOUNTED if record.get("root") else folder


def broker_mark(folder: Path) -> str:
    """Stands in the environment of all that belongs to a broker."""
    return f"PRIVATE_BROKER={folder}"


def node_mark(folder: Path, entry: Record) -> str:
    """Stands in the environment of all that belongs to one node."""
    return f"PRIVATE_NODE={folder}/{entry['number']}"


def environment(folder: Path, record: Record, entry: Record) -> dict[str, str]:
    """What a node, its epmd and its tools have in common. Nothing of the caller's: no RABBITMQ_* may leak in."""
    place = seen_folder(folder, record)
    own, node, dist_port = place / f"node{entry['number']}", entry["name"], entry["dist_port"]
    loopback = "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"
    mark, _, marked_as = broker_mark(folder).partition("=")
    home = place / "home"
    ours = {"RABBITMQ_SCRIPTS_DIR": str(home / "sbin"), "RABBITMQ_PLUGINS_DIR": str(home / "plugins")}
    return {
        mark: marked_as,
        "PATH": SYSTEM_PATH if record.get("root") else f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}",
        "LC_ALL": "C.UTF-8",
        "HOME": str(place),  # of the cookie
        "ERL_EPMD_PORT": str(record["epmd_port"]),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "ERL_INETRC": str(place / "inetrc"),
        "ERL_CRASH_DUMP_SECONDS": "0",
        "RABBITMQ_NODENAME": node,
        "RABBITMQ_CONF_ENV_FILE": str(place / "none"),  # not the system's in /etc/rabbitmq
        "RABBITMQ_CONFIG_FILE": str(own / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(place / "none.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(place / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(own / "data"),
        "RABBITMQ_MNESIA_DIR": str(own / "data" / "db"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(own / "data" / "config"),
        "RABBITMQ_SCHEMA_DIR": str(own / "data" / "schema"),
        "RABBITMQ_PLUGINS_EXPAND_DIR": str(own / "data" / "plugins"),
        "RABBITMQ_FEATURE_FLAGS_FILE": str(own / "data" / "feature_flags"),
        "RABBITMQ_PID_FILE": str(own / "data" / "pid"),
        "RABBITMQ_LOG_BASE": str(own / "log"),
        "RABBITMQ_LOGS": str(own / "log" / "rabbit.log"),
        "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
        # Few threads and no busy waiting: it shares a small machine with the tests.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +SDcpu 2:2 +SDio 4"
        f" +sbwt none +sbwtdcpu none +sbwtdio none {loopback} -sname {node}"
        f" -kernel inet_dist_listen_min {dist_port} inet_dist_listen_max {dist_port}",
        "RABBITMQ_CTL_ERL_ARGS": f"+S 1:1 +sbwt none {loopback}",
        "RABBITMQ_CTL_DIST_PORT_MIN": "0",
        "RABBITMQ_CTL_DIST_PORT_MAX": "0",
        "detached": "1",  # makes the script exec: the process that we start is the node
        **(ours if (folder / "home").exists() else {}),
    }


def write_files(folder: Path, record: Record) -> None:
    """All that the nodes need before their first start."""
    cookie = folder / ".erlang.cookie"
    cookie.write_text(secrets.token_hex(16))
    cookie.chmod(0o400)
    # `localhost` must be found even where /etc/hosts does not know it.
    hosts = '{host, {127,0,0,1}, ["localhost"]}.\n{lookup, [file, native]}.\n'
    (folder / "inetrc").write_text(hosts)
    plugins = ["rabbitmq_management"] if record["management"] else []
    plugins += ["rabbitmq_auth_mechanism_ssl"] if record["tls"] else []
    (folder / "enabled_plugins").write_text(f"[{', '.join(plugins)}].\n")
    (folder / "log").mkdir()
    if record["tls"]:
        tls.write_certificates(folder / "tls")
    for entry in record["nodes"]:
        own = folder / f"node{entry['number']}"
        for part in ("data", "log"):
            (own / part).mkdir(parents=True)
        lines = [f"{key} = {value}\n" for key, value in configuration(folder, record, entry).items()]
        (own / "rabbitmq.conf").write_text("".join(lines))
    _write_home(folder, record, [*CORE, *plugins])


def configuration(folder: Path, record: Record, entry: Record) -> Mapping[str, str]:
    """rabbitmq.conf; the user's own lines win."""
    conf = {
        "listeners.tcp.1": f"{LOOPBACK}:{entry['port']}",
        "vm_memory_high_watermark.relative": "0.6",
        "disk_free_limit.absolute": "16MB",
        "raft.wal_max_size_bytes": "67108864",  # 512 MB unless told: in memory and on disk
        "log.console": "false",
    }
    if record["tls"]:
        certificates = seen_folder(folder, record) / "tls"
        conf |= {
            "listeners.ssl.1": f"{LOOPBACK}:{entry['tls_port']}",
            "ssl_options.cacertfile": str(certificates / tls.CA),
            "ssl_options.certfile": str(certificates / tls.SERVER),
            "ssl_options.keyfile": str(certificates / tls.SERVER_KEY),
            "ssl_options.verify": "verify_peer",  # a client's certificate is asked for, not required
            "ssl_options.fail_if_no_peer_cert": "false",
            "auth_mechanisms.1": "PLAIN",
            "auth_mechanisms.2": "AMQPLAIN",
            "auth_mechanisms.3": "EXTERNAL",  # its certificate is the client's login: its common name is the user's
            "ssl_cert_login_from": "common_name",
        }
    if record["management"]:
        conf |= {"management.tcp.ip": LOOPBACK, "management.tcp.port": str(entry["management_port"])}
    # The first node begins alone and the others join it. Each knows only these two: from 4.0 on a node waits for
    # most of those that it knows, before 4.0 nodes that begin at once may miss each other.
    first = record["nodes"][0]
    if entry is not first:
        conf |= {
            "cluster_formation.peer_discovery_backend": "classic_config",
            "cluster_formation.classic_config.nodes.1": first["name"],
            "cluster_formation.classic_config.nodes.2": entry["name"],
        }
    return conf | dict(record["conf"])


def _write_home(folder: Path, record: Record, wanted: list[str]) -> None:
    """A RabbitMQ home with links to the parts in use alone.

    Erlang looks into every plugin's folder for every module that it loads: without the unused ones a
    start costs half.
    """
    real = Path(record["home"])
    here = Path(record.get("root") or "/") / real.relative_to("/")
    parts = {path.parent.parent.name.rpartition("-")[0]: path for path in here.glob("plugins/*/ebin/*.app")}
    if not parts.keys() >= set(wanted):
        return  # laid out in some other way: it starts with all its plugins
    needed, todo = set(), wanted
    while todo:
        part = todo.pop()
        if part in parts and part not in needed:
            needed.add(part)
            for names in re.findall(r"applications\s*,\s*\[([^\]]*)\]", parts[part].read_text()):
                todo += re.findall(r"\w+", names)
    home = folder / "home"
    (home / "plugins").mkdir(parents=True)
    for link in ("sbin", "escript"):
        (home / link).symlink_to(real / link)
    for part in needed:
        name = parts[part].parent.parent.name
        (home / "plugins" / name).symlink_to(real / "plugins" / name)
