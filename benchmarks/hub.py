"""The hub between four processes on loopback: round trips, throughput, CPU time and memory.

The hub, the coordinator and two parties run as processes of their own, with mutual TLS as in a deployment. Prints
a table, or JSON with --json.

    python -m benchmarks.hub --rounds 2000 --megabytes 1000
"""

import argparse
import json
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fedmkt.crypto.sign import Identity
from fedmkt.transport.hub_identity import Admitted, ClientTls, ServerTls
from fedmkt.transport.hub_server import Hub
from fedmkt.transport.hub_session import HubSession
from tests.transport.hub_world import COORDINATOR, Authority

SENDER, READER = "bank", "partner"
EVERYONE = (COORDINATOR, SENDER, READER)
WAIT = 120.0
Figures = dict[str, float]


def main() -> None:
    """Measure, or play one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--message", type=int, default=64, help="megabytes of one message of the transfer")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--play", choices=("hub", *EVERYONE), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play == "hub":
        play_hub(options.folder)
    elif options.play:
        play_member(options)
    else:
        figures = measure(options)
        print(json.dumps(figures) if options.json else table(figures))


def measure(options: argparse.Namespace) -> Figures:
    """Start all processes and collect what each of them found."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_world(folder)
        hub = start(options, "hub", folder, 0)
        port = int(read_line(hub))
        members = {n: start(options, n, folder, port) for n in EVERYONE}
        figures: Figures = {"hub MB at start": resident(hub.pid)}
        for phase in ("round trips", "transfer", "round trips beside bulk"):
            before = cpu(hub.pid)
            for member in members.values():
                write_line(member, phase)
            for member in members.values():
                figures |= json.loads(read_line(member))
            figures[f"hub MB after {phase}"] = resident(hub.pid)
            if phase == "transfer":
                figures["hub CPU s per GB"] = (cpu(hub.pid) - before) / options.megabytes * 1000
        figures["hub MB at its peak"] = resident(hub.pid, "VmHWM")
        for process in (*members.values(), hub):
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)
        return figures


def table(figures: Figures) -> str:
    """Lay the figures out, one a line."""
    width = max(map(len, figures))
    return "\n".join(f"{name:<{width}}  {value:10.2f}" for name, value in figures.items())


def write_world(folder: Path) -> None:
    """Make keys and certificates for all, in one folder that is thrown away."""
    authority = Authority()
    (folder / "ca.pem").write_bytes(authority.certificate)
    registry = {}
    for name in ("hub", *EVERYONE):
        issued = authority.server() if name == "hub" else authority.client(name)
        identity = Identity.generate(secrets.token_bytes)
        (folder / f"{name}.key").write_bytes(issued.key)
        (folder / f"{name}.pem").write_bytes(issued.certificate)
        (folder / f"{name}.identity").write_bytes(identity.secret_bytes())
        registry[name] = [identity.public.hex(), issued.serial]
    (folder / "registry.json").write_text(json.dumps(registry))
    (folder / "session").write_bytes(secrets.token_bytes(16))


def play_hub(folder: Path) -> None:
    """Be the hub until standard input ends."""
    registry = json.loads((folder / "registry.json").read_text())
    admitted = {n: Admitted(n, bytes.fromhex(key), serial) for n, (key, serial) in registry.items()}
    pem = [(folder / f).read_bytes() for f in ("hub.key", "hub.pem", "ca.pem")]
    hub = Hub(lambda: admitted, ServerTls(*pem), "127.0.0.1:0", COORDINATOR)
    print(hub.start(), flush=True)
    sys.stdin.read()
    hub.stop()


def play_member(options: argparse.Namespace) -> None:
    """Be a member: do one phase for each line of standard input, and print what was found."""
    me, folder = options.play, options.folder
    key, certificate, ca = ((folder / f).read_bytes() for f in (f"{me}.key", f"{me}.pem", "ca.pem"))
    identity = Identity((folder / f"{me}.identity").read_bytes())
    session_id = (folder / "session").read_bytes()
    members = (SENDER, READER) if me == COORDINATOR else ()
    address = f"127.0.0.1:{options.port}"
    with HubSession(address, ClientTls(key, certificate, ca), identity, session_id, me, members) as session:
        session.wait_for([n for n in EVERYONE if n != me], WAIT)
        phases: dict[str, Callable[[HubSession, argparse.Namespace], Figures]] = {
            "round trips": round_trips,
            "transfer": transfer,
            "round trips beside bulk": beside_bulk,
        }
        for line in sys.stdin:
            print(json.dumps(phases[line.strip()](session, options)), flush=True)


def round_trips(session: HubSession, options: argparse.Namespace) -> Figures:
    """Send 256 bytes from one party to the other and back, many times."""
    if session.me == SENDER:
        return in_milliseconds("round trip", [once(session, READER) for _ in range(options.rounds)])
    if session.me == READER:
        echo(session, SENDER, options.rounds)
    return {}


def transfer(session: HubSession, options: argparse.Namespace) -> Figures:
    """Send much from one party to the other, in large messages."""
    count = options.megabytes // options.message
    if session.me == COORDINATOR:
        return {}
    before, started = cpu_of_this(), time.perf_counter()
    if session.me == SENDER:
        message = secrets.token_bytes(options.message * 1_000_000)
        started = time.perf_counter()
        for _ in range(count):
            session.send(READER, message)
        session.receive_from(READER, WAIT)
        seconds = time.perf_counter() - started
        found = {"transfer MB/s": count * options.message / seconds, "transfer s": seconds}
    else:
        for _ in range(count):
            session.receive_from(SENDER, WAIT)
        session.send(SENDER, b"all there")
        found = {}
    found[f"{'sender' if session.me == SENDER else 'reader'} CPU s per GB"] = (
        (cpu_of_this() - before) / options.megabytes * 1000
    )
    return found


def beside_bulk(session: HubSession, options: argparse.Namespace) -> Figures:
    """Make small round trips to a party that somebody else sends much to at the same time."""
    rounds = min(300, options.rounds)
    if session.me == COORDINATOR:
        time.sleep(0.2)
        return in_milliseconds("round trip beside bulk", [once(session, READER) for _ in range(rounds)])
    if session.me == SENDER:
        message = bytes(16 << 20)
        sent = 0
        while not is_stopped(session):
            session.send(READER, message)
            sent += 1
        session.send(READER, b"")
        return {}
    answered = 0
    while True:
        name, message = session.receive(WAIT)
        if name == COORDINATOR:
            session.send(COORDINATOR, message)
            answered += 1
            if answered == rounds:
                session.send(SENDER, b"stop")
        elif not len(message):
            return {}


def is_stopped(session: HubSession) -> bool:
    """Say whether the reader asked to stop."""
    from fedmkt.transport.hub_session import NothingCame

    try:
        session.receive_from(READER, 0.0)
    except NothingCame:
        return False
    return True


def once(session: HubSession, to: str) -> float:
    """Make one small round trip; return its seconds."""
    message = bytes(256)
    started = time.perf_counter()
    session.send(to, message)
    session.receive_from(to, WAIT)
    return time.perf_counter() - started


def echo(session: HubSession, source: str, count: int) -> None:
    """Send back what comes."""
    for _ in range(count):
        session.send(source, session.receive_from(source, WAIT))


def in_milliseconds(name: str, seconds: list[float]) -> Figures:
    """Sum up durations, without the first tenth."""
    kept = sorted(seconds[len(seconds) // 10 :])
    at = {"median": 0.5, "95 %": 0.95, "99 %": 0.99}
    return {f"{name} ms, {label}": kept[int(len(kept) * q)] * 1000 for label, q in at.items()}


def start(options: argparse.Namespace, play: str, folder: Path, port: int) -> "subprocess.Popen[str]":
    """Start one of the processes."""
    command = [sys.executable, "-m", "benchmarks.hub", "--play", play, "--folder", str(folder)]
    command += ["--port", str(port), "--rounds", str(options.rounds)]
    command += ["--megabytes", str(options.megabytes), "--message", str(options.message)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def read_line(process: "subprocess.Popen[str]") -> str:
    """Read what a process printed."""
    assert process.stdout is not None
    return process.stdout.readline()


def write_line(process: "subprocess.Popen[str]", line: str) -> None:
    """Tell a process what to do next."""
    assert process.stdin is not None
    print(line, file=process.stdin, flush=True)


def resident(pid: int, which: str = "VmRSS") -> float:
    """Return the memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) / 1000
    raise LookupError(which)


def cpu(pid: int) -> float:
    """Return the CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def cpu_of_this() -> float:
    """Return the CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
