"""An intersection by SecretFlow SPU in two processes over loopback, measured from outside and from inside.

    python spu_pair.py PYTHON PROTOCOL FOLDER

PYTHON is one that has the package `spu`; FOLDER holds bank.csv and partner.csv with one column `id`. Prints one
JSON object. Needs nothing but the standard library, and `spu` in the sides.

What is counted: user and system CPU seconds of both processes and of what they start (SPU sorts by `sort`), from
the call of `psi_execute` to its return; of these those between SPU's own log lines "Online start" and "Online
end", which leave out reading and writing CSV, the only input and output that the package has. Loading the library
and connecting are not counted. The options are those that cost SPU least: ids are known to be unique, the result
is neither sorted nor broadcast, and all ids go into one bucket. Bytes are those of the loopback device: run this
in a network namespace of its own (`unshare -rn`), else they count other programs too.
"""

import contextlib
import json
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

NAMES = ("bank", "partner")
DEADLINE = 1800
_STAMP = re.compile(r"^\[([0-9-]+ [0-9:.]+)\].*::Online\] (start|end)")
_TICK = os.sysconf("SC_CLK_TCK")


def side(rank: int, ports: list[str], protocol: str, folder: Path) -> None:
    """Take part in one intersection and print what it cost this side, as the last line."""
    import spu.libspu.link as link
    from spu import psi

    parties = link.Desc()
    parties.recv_timeout_ms = DEADLINE * 1000
    for number, port in enumerate(ports):
        parties.add_party(f"side{number}", f"127.0.0.1:{port}")
    source = folder / f"{NAMES[rank]}.csv"
    with source.open() as lines:
        rows = sum(1 for _ in lines) - 1
    config = psi.PsiExecuteConfig(
        protocol_conf=psi.PsiProtocolConfig(
            protocol=psi.parse_protocol(f"PROTOCOL_{protocol}"),
            receiver_rank=0,
            broadcast_result=False,
            bucket_size=max(rows, 1 << 20),
            ecdh_params=psi.EcdhParams(curve=psi.EllipticCurveType.CURVE_25519),
        ),
        input_params=psi.InputParams(path=str(source), selected_keys=["id"], keys_unique=True),
        output_params=psi.OutputParams(path=str(folder / f"{NAMES[rank]}.found.csv"), disable_alignment=True),
    )
    context = link.create_brpc(parties, rank)
    context.barrier()
    start_mb, wall, cpu = peak_mb(), time.perf_counter(), cpu_s()
    report = psi.psi_execute(config, context)
    facts = {
        "cpu_s": cpu_s() - cpu,
        "wall_s": time.perf_counter() - wall,
        "peak_mb": peak_mb(),
        "start_mb": start_mb,
        "common": report.intersection_count,
    }
    context.stop_link()
    print("\n" + json.dumps(facts), flush=True)


def cpu_s() -> float:
    """Return user and system seconds of this process and of those that it started."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def peak_mb() -> float:
    """Return the largest resident size of this process so far, in millions of bytes."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


class Watch(threading.Thread):
    """Notes the CPU seconds of a process a hundred times a second, until it ends."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        super().__init__(daemon=True)
        self._process = process
        self.samples: list[tuple[float, float]] = []

    def run(self) -> None:
        """Note time and CPU seconds: those of the process and of its ended children."""
        stat = Path(f"/proc/{self._process.pid}/stat")
        with contextlib.suppress(OSError, IndexError):
            while self._process.poll() is None:
                fields = stat.read_text().rpartition(")")[2].split()
                self.samples.append((time.time(), sum(map(int, fields[11:15])) / _TICK))
                time.sleep(0.01)

    def between(self, start: float, end: float) -> float:
        """Return the CPU seconds between two times."""
        inside = [cpu for at, cpu in self.samples if start <= at <= end]
        return inside[-1] - inside[0] if inside else 0.0


def online(log: str) -> tuple[float, float]:
    """Find when the part between reading and writing files began and ended."""
    found = [m for line in log.splitlines() if (m := _STAMP.match(line))]
    at = {m[2]: datetime.strptime(m[1], "%Y-%m-%d %H:%M:%S.%f").timestamp() for m in found}
    return at["start"], at["end"]


def loopback_bytes() -> int:
    """Return how many bytes passed over loopback so far."""
    line = next(x for x in Path("/proc/net/dev").read_text().splitlines() if x.strip().startswith("lo:"))
    return int(line.split()[9])


def free_ports() -> list[str]:
    """Find two ports of loopback that nobody listens on."""
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in (first, second)]


def pair(python: str, protocol: str, folder: Path) -> dict[str, object]:
    """Run both sides and return what they cost."""
    ports, before = ",".join(free_ports()), loopback_bytes()
    sides = [
        subprocess.Popen(
            [python, __file__, "--side", str(rank), ports, protocol, str(folder)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | {"TMPDIR": str(folder)},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    watches = [Watch(one) for one in sides]
    for watch in watches:
        watch.start()
    other = {}
    reader = threading.Thread(target=lambda: other.update(log=sides[1].communicate(timeout=DEADLINE)[0]))
    reader.start()
    try:
        logs = [sides[0].communicate(timeout=DEADLINE)[0]]
        reader.join(DEADLINE)
        logs.append(other["log"])
    finally:
        for one in sides:
            one.kill()
    facts = [json.loads(next(x for x in reversed(log.splitlines()) if x.startswith("{"))) for log in logs]
    for log, watch, fact in zip(logs, watches, facts, strict=True):
        fact["online_cpu_s"] = watch.between(*online(log))
    return {
        "receiver": facts[0],
        "sender": facts[1],
        "wall_s": max(f.pop("wall_s") for f in facts),
        "bytes": loopback_bytes() - before,
        "common": facts[0]["common"],
    }


def main() -> None:
    """Be a side, or run both."""
    if sys.argv[1] == "--side":
        rank, ports, protocol, folder = sys.argv[2:]
        side(int(rank), ports.split(","), protocol, Path(folder))
    else:
        python, protocol, folder = sys.argv[1:]
        print(json.dumps(pair(python, protocol, Path(folder))))


if __name__ == "__main__":
    main()
