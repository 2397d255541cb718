"""The control socket in a small loop of the test's own: nobody who is at the other end holds it up."""

from __future__ import annotations

import json
import os
import resource
import selectors
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_events.supervisor.control import Control
from domain_events.supervisor.control_socket import ControlSocket, ControlTaken, may_ask
from domain_events.supervisor.protocol import (
    LONGEST_REQUEST,
    MOST_CLIENTS,
    PATIENCE,
    Done,
    Failed,
    Metrics,
    ProtocolError,
    Reload,
    Reply,
    Request,
    Restart,
    Scale,
    Status,
    control_path,
    read_reply,
    read_request,
    unknown_receiver,
    write_reply,
    write_request,
)

STATUS = write_request(Status())


class Master:
    """What the real one does with its control, and a clock that stands still."""

    def __init__(self, path: Path) -> None:
        self.now = 1000.0
        self.asked: list[Request] = []
        self.later: list[Callable[[Reply], None]] = []
        self.connected: list[socket.socket] = []
        self.data: Any = {"hello": "there"}
        self.selector = selectors.DefaultSelector()
        self.control = Control(str(path), self.selector, self.answer, clock=lambda: self.now)
        self.path = path

    def answer(self, request: Request, later: Callable[[Reply], None]) -> Reply | None:
        self.asked.append(request)
        match request:
            case Reload(wait=True):
                self.later.append(later)
                return None
            case Restart():
                raise ZeroDivisionError
            case _:
                return Done(self.data)

    def turn(self) -> int:
        """How many were ready."""
        self.control.tick(self.now)
        ready = self.selector.select(0)
        for key, _ in ready:
            key.data()
        return len(ready)

    def turns(self, number: int = 10) -> None:
        for _ in range(number):
            self.turn()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.turns()

    def clients(self) -> int:
        return len(self.selector.get_map()) - 1


class Client:
    def __init__(self, master: Master, *sent: bytes) -> None:
        self.master = master
        self.socket = socket.socket(socket.AF_UNIX)
        master.connected.append(self.socket)
        self.socket.connect(str(master.path))
        self.socket.setblocking(False)
        self.received = b""
        for part in sent:
            self.socket.sendall(part)

    def line(self, within: int = 10) -> bytes | None:
        """The next line of the master, None at its end; AssertionError after so many turns of its loop."""
        for _ in range(within):
            self.master.turn()
            while b"\n" not in self.received:
                try:
                    data = self.socket.recv(1 << 20)
                except BlockingIOError:
                    break
                except ConnectionResetError:
                    return None
                if not data:
                    return None
                self.received += data
            else:
                line, _, self.received = self.received.partition(b"\n")
                return line
        raise AssertionError(f"no line within {within} turns")

    def reply(self, within: int = 10) -> Reply:
        line = self.line(within)
        assert line is not None, "the master has hung up"
        return read_reply(line)

    def failure(self) -> Failed:
        reply = self.reply()
        assert isinstance(reply, Failed)
        return reply


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    before = set(os.listdir("/proc/self/fd"))
    master = Master(tmp_path / "control.sock")
    yield master
    for client in master.connected:
        client.close()
    master.control.close()
    master.selector.close()
    assert not master.path.exists()
    left = [name for name in os.listdir("/proc/self/fd") if name not in before]
    assert not [name for name in left if _is_open_in_master(name, master.path)]


def _is_open_in_master(name: str, path: Path) -> bool:
    """Whether a descriptor is a connection that the control has accepted: those have its path as their own name."""
    try:
        with socket.socket(fileno=os.dup(int(name))) as copy:
            return copy.family == socket.AF_UNIX and copy.getsockname() == str(path)
    except OSError:
        return False


# Requests and replies


@pytest.mark.parametrize(
    "request_", [Status(), Metrics(), Restart("printer"), Scale("ä b", 0), Reload(), Reload(wait=True)]
)
def test_a_request_can_be_read_again(request_: Request) -> None:
    line = write_request(request_)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert read_request(line) == request_


@pytest.mark.parametrize("reply", [Done({"a": [1, None]}), Failed("no\nway \udc80", 4)])
def test_a_reply_can_be_read_again(reply: Reply) -> None:
    line = write_reply(reply)
    assert line.count(b"\n") == 1
    assert read_reply(line) == reply


BAD_REQUESTS = [
    (b"", "not JSON"),
    (b"\x00\xff\xfe", "not UTF-8"),
    (b"hello", "not JSON"),
    (b"[1]", "no JSON object"),
    (b"null", "no JSON object"),
    (b"[" * 60000, "not JSON"),
    (b'{"command": ' + b"9" * 5000 + b"}", "not JSON"),
    (b"{}", "unknown command None"),
    (b'{"command": ["status"]}', "unknown command a list"),
    (b'{"command": "explode"}', "unknown command 'explode'"),
    (b'{"command": "status", "x": 1}', "does not know 'x'"),
    (b'{"command": "metrics", "x": 1}', "does not know 'x'"),
    (b'{"command": "restart"}', "receiver must be a name"),
    (b'{"command": "restart", "receiver": ""}', "receiver must be a name"),
    (b'{"command": "restart", "receiver": "' + b"x" * 201 + b'"}', "receiver must be a name"),
    (b'{"command": "scale", "receiver": "a"}', "whole number from 0 to 1000, not None"),
    (b'{"command": "scale", "receiver": "a", "processes": 1001}', "not 1001"),
    (b'{"command": "scale", "receiver": "a", "processes": -1}', "not -1"),
    (b'{"command": "scale", "receiver": "a", "processes": true}', "not True"),
    (b'{"command": "scale", "receiver": "a", "processes": 1.0}', "not 1.0"),
    (b'{"command": "reload", "wait": "yes"}', "true or false, not 'yes'"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_REQUESTS)
def test_what_is_no_request_is_answered_with_the_reason(master: Master, line: bytes, reason: str) -> None:
    client = Client(master, line + b"\n", STATUS)
    failed = client.failure()
    assert reason in failed.message
    assert failed.code == 2
    assert client.reply() == Done(master.data), "the connection goes on"


@given(st.binary())
def test_no_bytes_make_the_reader_fail_in_another_way(line: bytes) -> None:
    for read in (read_request, read_reply):
        with pytest.raises(ProtocolError):
            read(line)


def test_a_wrong_name_gets_a_suggestion() -> None:
    assert unknown_receiver("printr", ["mailer", "printer"]) == Failed(
        "there is no receiver 'printr'; did you mean 'printer'?", 4
    )
    assert "there are mailer, printer" in unknown_receiver("xyz", ["printer", "mailer"]).message


def test_the_environment_tells_where_the_socket_is() -> None:
    assert control_path({"DOMAIN_EVENTS_CONTROL": "/a", "RUNTIME_DIRECTORY": "/run/b"}) == "/a"
    assert control_path({"DOMAIN_EVENTS_CONTROL": "", "RUNTIME_DIRECTORY": "/run/b:/run/c"}) == "/run/b/control.sock"
    assert control_path({"RUNTIME_DIRECTORY": ""}) is None


# The usual


def test_several_requests_on_one_connection_are_answered_in_order(master: Master) -> None:
    client = Client(master, STATUS)
    assert client.reply() == Done(master.data)
    client.socket.sendall(write_request(Scale("printer", 4)) + b'{"command": "reload"}\r\n')
    assert client.reply() == client.reply() == Done(master.data)
    assert master.asked == [Status(), Scale("printer", 4), Reload()]
    client.socket.close()
    master.turns()
    assert master.clients() == 0


def test_one_who_has_nothing_more_to_say_is_answered_and_left(master: Master) -> None:
    client = Client(master, STATUS, STATUS.rstrip())
    client.socket.shutdown(socket.SHUT_WR)
    assert client.reply() == client.reply() == Done(master.data), "the last line needs no end"
    assert client.line() is None


def test_a_request_in_pieces_is_one(master: Master) -> None:
    client = Client(master)
    for byte in STATUS:
        client.socket.sendall(bytes([byte]))
        master.turn()
    assert client.reply() == Done(master.data)


def test_a_large_reply_arrives_whole(master: Master) -> None:
    master.data = {"text": "x" * 5_000_000}
    assert Client(master, STATUS).reply(100) == Done(master.data)


def test_a_reply_may_come_later(master: Master) -> None:
    client = Client(master, write_request(Reload(wait=True)), STATUS)
    master.turns()
    master.pass_time(10 * PATIENCE)
    assert master.asked == [Reload(wait=True)], "the next request waits for its turn"
    master.later[0](Done({"n": 1}))
    master.later[0](Done({"n": 2}))
    assert client.reply() == Done({"n": 1})
    assert client.reply() == Done(master.data)


def test_a_later_reply_for_one_who_has_gone_is_for_nobody(master: Master) -> None:
    client = Client(master, write_request(Reload(wait=True)))
    master.turns()
    assert master.clients() == 1
    client.socket.close()
    master.turns()
    assert master.clients() == 0, "that it has gone is seen at once"
    master.later[0](Done({}))
    master.turns()


def test_one_who_only_listens_may_wait_too(master: Master) -> None:
    client = Client(master, write_request(Reload(wait=True)))
    client.socket.shutdown(socket.SHUT_WR)
    master.turns()
    assert master.turn() == 0, "the end of its words does not keep the loop busy"
    master.later[0](Failed("no", 1))
    assert client.reply() == Failed("no", 1)
    assert client.line() is None


def test_who_waits_at_the_end_is_told(master: Master) -> None:
    client, silent = Client(master, write_request(Reload(wait=True))), Client(master)
    master.turns()
    master.control.close()
    master.control.close()
    assert client.failure().code == silent.failure().code == 1
    master.later[0](Done({}))


def test_a_fault_of_the_master_costs_one_reply_and_is_logged(master: Master, caplog: pytest.LogCaptureFixture) -> None:
    client = Client(master, write_request(Restart("printer")))
    assert client.failure().code == 1
    assert "ZeroDivisionError" in caplog.text
    master.data = {"a": object()}
    client.socket.sendall(STATUS)
    assert client.failure().code == 1
    master.data = {"a": float("nan")}
    client.socket.sendall(STATUS)
    assert client.failure().code == 1


# Those who mean no good


def never_writes(master: Master) -> list[Client]:
    return [Client(master) for _ in range(MOST_CLIENTS - 1)]


def never_reads(master: Master) -> list[Client]:
    master.data = {"text": "x" * 1_000_000}
    return [Client(master, STATUS * 1000) for _ in range(8)]


def writes_a_long_line(master: Master) -> list[Client]:
    clients = [Client(master) for _ in range(8)]
    for client in clients:
        _push(client, b"x" * 10 * 1024 * 1024)
    return clients


def writes_garbage(master: Master) -> list[Client]:
    return [Client(master, os.urandom(50_000)) for _ in range(8)]


def writes_many_requests(master: Master) -> list[Client]:
    return [Client(master, b"{}\n" * 20_000) for _ in range(8)]


def writes_half_a_request(master: Master) -> list[Client]:
    return [Client(master, STATUS[:9]) for _ in range(MOST_CLIENTS - 1)]


def leaves_in_the_middle(master: Master) -> list[Client]:
    clients = [Client(master, STATUS[:9]) for _ in range(8)]
    for client in clients:
        client.socket.close()
    return []


def leaves_without_its_reply(master: Master) -> list[Client]:
    clients = [Client(master, STATUS) for _ in range(8)]
    for client in clients:
        client.socket.close()
    return []


def leaves_with_its_reply_unread(master: Master) -> list[Client]:
    clients = [Client(master, STATUS, STATUS) for _ in range(8)]
    master.turns(3)
    for client in clients:
        client.socket.close()  # what is unread makes it a reset: the master sees an error, not an end of file
    return []


def _push(client: Client, data: bytes) -> None:
    """As much as the kernel takes."""
    try:
        while data:
            data = data[client.socket.send(data) :]
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        pass


HOSTILE = [
    never_writes,
    never_reads,
    writes_a_long_line,
    writes_garbage,
    writes_many_requests,
    writes_half_a_request,
    leaves_in_the_middle,
    leaves_without_its_reply,
    leaves_with_its_reply_unread,
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.__name__)
@pytest.mark.parametrize("first", [False, True], ids=["arrived", "arriving"])
def test_others_are_answered_within_a_few_turns(
    master: Master, hostile: Callable[[Master], list[Client]], first: bool
) -> None:
    kept = hostile(master)
    if not first:
        master.turns(20)
    good = Client(master, STATUS)
    assert good.reply(within=12) == Done(master.data)
    good.socket.close()
    master.pass_time(PATIENCE)
    talkative = hostile in (writes_many_requests, writes_garbage)  # each line that they sent has its own reply
    assert master.clients() == 0 or talkative, "each of them is dropped in time"
    for client in kept:
        client.socket.close()
    master.turns()
    assert master.clients() == 0
    assert master.control.due is None
    assert master.turn() == 0, "an idle loop sleeps"


def test_a_line_of_ten_mebibytes_is_refused_as_soon_as_it_is_too_long(master: Master) -> None:
    client = Client(master)
    sent = 0
    for _ in range(10 * 1024):
        try:
            client.socket.sendall(b"x" * 1024)
        except (BrokenPipeError, ConnectionResetError):
            break
        sent += 1024
        master.turn()
    assert sent <= LONGEST_REQUEST + 4 * 1024
    assert "longer than 65536 bytes" in client.failure().message
    assert client.line() is None
    assert master.clients() == 0


def test_the_longest_request_is_answered_and_the_next_byte_is_too_much(master: Master) -> None:
    line = STATUS.rstrip().ljust(LONGEST_REQUEST) + b"\n"
    client = Client(master, line)
    assert client.reply() == Done(master.data)
    client.socket.sendall(b" " + line)
    assert "longer than" in client.failure().message


def test_one_that_does_not_read_keeps_one_reply_and_no_more_in_memory(master: Master) -> None:
    master.data = {"text": "x" * 1_000_000}
    client = Client(master, STATUS * 100)
    master.turns(200)
    assert len(master.asked) == 1
    master.pass_time(PATIENCE - 0.1)
    assert master.clients() == 1
    master.pass_time(0.1)
    assert master.clients() == 0
    client.socket.close()


def test_a_byte_now_and_then_gives_no_more_time(master: Master) -> None:
    client = Client(master)
    master.turns()
    for _ in range(5):
        client.socket.sendall(b"{")
        master.pass_time(PATIENCE / 5)
    assert "no complete request within 10 s" in client.failure().message
    assert client.line() is None


def test_each_request_has_its_own_time(master: Master) -> None:
    client = Client(master)
    for _ in range(5):
        master.pass_time(PATIENCE * 0.9)
        client.socket.sendall(STATUS)
        assert client.reply() == Done(master.data)


def test_when_the_master_itself_was_stopped_what_came_in_time_counts(master: Master) -> None:
    client = Client(master)
    master.turns()
    client.socket.sendall(STATUS)
    master.now += 100
    assert client.reply() == Done(master.data)


def test_more_than_32_clients_are_told_so(master: Master) -> None:
    clients = [Client(master) for _ in range(MOST_CLIENTS)]
    one_more = Client(master, STATUS)
    assert one_more.failure() == Failed("the master has too many clients; try again", 3)
    assert one_more.line() is None
    clients[0].socket.close()
    assert Client(master, STATUS).reply() == Done(master.data)


def test_those_who_left_while_they_waited_make_room(master: Master) -> None:
    clients = [Client(master, write_request(Reload(wait=True))) for _ in range(MOST_CLIENTS)]
    for client in clients:
        client.socket.shutdown(socket.SHUT_WR)
    master.turns(20)
    for client in clients:
        client.socket.close()
    assert Client(master, STATUS).reply() == Done(master.data)


@contextmanager
def no_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_the_loop_does_not_spin_and_who_waits_is_taken_later(
    master: Master, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(master, STATUS)
    with no_descriptors():
        master.turns()
        assert master.turn() == 0
        assert master.control.due == master.now + 1
        master.pass_time(1)
        assert master.turn() == 0, "one try in a second"
    assert caplog.text.count("takes nobody for a while: Too many open files") == 1
    master.now += 1
    assert client.reply() == Done(master.data)


def test_others_go_on_while_there_are_no_descriptors(master: Master) -> None:
    client = Client(master, STATUS)
    assert client.reply() == Done(master.data)
    newcomer = Client(master, STATUS)
    with no_descriptors():
        master.turns()
        client.socket.sendall(STATUS)
        assert client.reply() == Done(master.data)
    master.control.close()
    newcomer.socket.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_other_users_are_turned_away_even_where_the_file_lets_them_in(caplog: pytest.LogCaptureFixture) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        master = Master(Path(folder) / "control.sock")
        master.path.chmod(0o666)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setuid(65534)
                with socket.socket(socket.AF_UNIX) as stranger:
                    stranger.settimeout(60)
                    stranger.connect(str(master.path))
                    os.write(write, stranger.recv(1000))
            finally:
                os._exit(0)
        os.close(write)
        assert master.selector.select(60)
        master.turns()
        os.waitpid(pid, 0)
        assert json.loads(os.read(read, 1000))["message"] == "only root and the supervisor's own user may ask"
        os.close(read)
        assert "user 65534" in caplog.text
        assert master.clients() == 0
        master.control.close()


def test_only_root_and_the_own_user_may_ask() -> None:
    assert may_ask(0)
    assert may_ask(os.geteuid())
    assert not may_ask(os.geteuid() + 1)


# The file


def test_the_file_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = ControlSocket(str(tmp_path / "control.sock"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "control.sock").stat().st_mode) == 0o600
    made.close()


def test_linux_makes_the_file_with_the_mode_of_the_socket(tmp_path: Path) -> None:
    """What ControlSocket relies upon, so that there is no moment before a chmod."""
    with socket.socket(socket.AF_UNIX) as plain:
        os.fchmod(plain.fileno(), 0o600)
        before = os.umask(0)
        plain.bind(str(tmp_path / "x"))
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600


def test_what_is_left_over_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    master = Master(path)
    assert "left over" in caplog.text
    assert Client(master, STATUS).reply() == Done(master.data)
    master.control.close()


def test_a_live_one_is_left_alone_and_its_pid_is_named(master: Master) -> None:
    with pytest.raises(ControlTaken, match=rf"pid {os.getpid()} answers at {master.path}; stop that one"):
        ControlSocket(str(master.path))
    master.turns()
    assert Client(master, STATUS).reply() == Done(master.data)


def test_a_live_one_that_takes_nobody_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as waiting:
        full.bind(str(path))
        full.listen(0)
        waiting.connect(str(path))
        with pytest.raises(ControlTaken, match="another master answers"):
            ControlSocket(str(path))
    assert path.exists()


def test_what_is_no_socket_stays_as_it_is(tmp_path: Path) -> None:
    file, link, folder = tmp_path / "file", tmp_path / "link", tmp_path / "folder"
    file.write_text("precious")
    link.symlink_to(file)
    folder.mkdir()
    for path in (file, link, folder):
        with pytest.raises(ControlTaken, match=f"{path} is no socket"):
            ControlSocket(str(path))
    assert file.read_text() == "precious"
    assert link.is_symlink()


def test_a_path_that_cannot_be_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ControlTaken, match=f"there is no directory {tmp_path / 'nowhere'}"):
        ControlSocket(str(tmp_path / "nowhere" / "x"))
    with pytest.raises(ControlTaken, match="Not a directory"):
        ControlSocket(str(tmp_path / "file" / "x"))
    with pytest.raises(ControlTaken, match=r"has 108 bytes; the longest possible is 107"):
        ControlSocket(f"/{'x' * 107}")
    for path in ("", "\0abstract", "with\0zero"):
        with pytest.raises(ControlTaken, match="cannot be the path"):
            ControlSocket(path)
    with pytest.raises(ControlTaken, match="cannot make the control socket /proc/x"):
        ControlSocket("/proc/x")


def test_the_longest_possible_path_works(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = f"{folder}/{'x' * (107 - len(folder) - 1)}"
        assert len(path) == 107
        ControlSocket(path).close()


def test_of_masters_that_start_together_one_gets_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        made, problems = _start_together(path, 6)
        assert (len(made), len(problems)) == (1, 5), problems
        assert all("answers at" in problem for problem in problems)
        made[0].close()
        assert not path.exists()


def _start_together(path: Path, number: int) -> tuple[list[ControlSocket], list[str]]:
    made: list[ControlSocket] = []
    problems: list[str] = []
    barrier = threading.Barrier(number)

    def start() -> None:
        barrier.wait(60)
        try:
            made.append(ControlSocket(str(path)))
        except ControlTaken as problem:
            problems.append(str(problem))

    threads = [threading.Thread(target=start) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return made, problems


def test_at_the_end_the_file_of_another_master_stays(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    first = ControlSocket(str(path))
    path.unlink()
    second = ControlSocket(str(path))
    first.close()
    assert path.exists()
    second.close()
    assert not path.exists()
    third = ControlSocket(str(path))
    path.unlink()
    third.close()


def test_the_application_may_change_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = ControlSocket("control.sock")
    monkeypatch.chdir("/")
    made.close()
    assert not (tmp_path / "control.sock").exists()


def test_a_child_lets_go_of_it_and_the_master_hears_nothing_of_that(master: Master) -> None:
    client = Client(master, STATUS)
    assert client.reply() == Done(master.data)
    waiting = Client(master, write_request(Reload(wait=True)))
    master.turns()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            master.control.close_descriptors()
            master.control.close()
            left = [name for name in os.listdir("/proc/self/fd") if _is_open_in_master(name, master.path)]
            code = len(left)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    client.socket.sendall(STATUS)
    assert client.reply() == Done(master.data)
    assert Client(master, STATUS).reply() == Done(master.data)
    master.later[0](Done({}))
    assert waiting.reply() == Done({})
