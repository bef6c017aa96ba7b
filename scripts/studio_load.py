"""Does the studio stay as large as it is, and answer everybody? Fifty clients, ten thousand requests, its memory.

`python scripts/studio_load.py [REQUESTS [CLIENTS]]` starts `superscope studio` on the runs in the package and asks
for what its pages ask for: runs, tables, arrays, forms, jobs, single files, and what is not there. Prints what came
back, how long it took, and the memory of the server as it went; its exit code is 1 if a request failed or the memory
rose.
"""

from __future__ import annotations

import collections
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

RISE = 1.10
"""Most that the memory after all requests may be of what it was after the first half of them."""
TIMEOUT = 300.0


@dataclass
class Tally:
    """What came back, from all clients."""

    wanted: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: int = 0
    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    bytes: int = 0
    again: int = 0

    def take(self) -> bool:
        """Whether there is one more request to make."""
        with self.lock:
            more = self.asked < self.wanted
            self.asked += more
            return more


def addresses(home: str, cookie: str) -> list[tuple[str, int, float]]:
    """Path, status that is right, and how often it is asked for, of everything that the pages ask for."""
    found = [
        ("/", 200, 4.0),
        ("/learn/geometry", 200, 2.0),
        ("/api/session", 200, 4.0),
        ("/api/runs", 200, 4.0),
        ("/api/studies", 200, 2.0),
        ("/api/jobs", 200, 4.0),
        ("/api/runs/nobody", 404, 1.0),
        ("/api/runs/@toy/tables/nothing", 404, 1.0),
        ("/api/runs/..%2F..%2Fetc%2Fpasswd", 404, 1.0),
    ]
    for run in json.loads(get(home, cookie, "/api/runs")[1])["runs"]:
        place = f"/api/runs/{urllib.parse.quote(run['id'])}"
        head = json.loads(get(home, cookie, place)[1])
        found += [(place, 200, 4.0), (f"{place}/report.html", 200, 0.2)]
        found += [(f"{place}/arrays/{name}", 200, 1.0) for name in head["arrays"]]
        for name, rows in head["tables"].items():
            found.append((f"{place}/tables/{name}", 200, 0.2 if rows > 2000 else 1.0))
            found.append((f"{place}/tables/{name}?limit=20&offset={rows // 2}", 200, 1.0))
    return found


def get(home: str, cookie: str, path: str, connection: http.client.HTTPConnection | None = None) -> tuple[int, bytes]:
    """Status and body of one answer."""
    connection = connection or http.client.HTTPConnection(home, timeout=TIMEOUT)
    connection.request("GET", path, headers={"cookie": cookie})
    answer = connection.getresponse()
    return answer.status, answer.read()


def enter(home: str, token: str) -> str:
    """The cookie that the key is changed for."""
    connection = http.client.HTTPConnection(home, timeout=TIMEOUT)
    connection.request("GET", f"/?token={token}")
    answer = connection.getresponse()
    answer.read()
    return (answer.getheader("set-cookie") or "").partition(";")[0]


def client(home: str, token: str, paths: Sequence[tuple[str, int, float]], tally: Tally, seed: int) -> None:
    """One browser: it enters by itself, keeps its connection, and asks once more where that was closed meanwhile."""
    chance = random.Random(seed)
    weights = [weight for _, _, weight in paths]
    cookie, connection = enter(home, token), http.client.HTTPConnection(home, timeout=TIMEOUT)
    while tally.take():
        ((path, right, _),) = chance.choices(paths, weights)
        begun = time.monotonic()
        used = connection.sock is not None
        status, body = 0, b""
        for last in (True,) if not used else (False, True):
            try:
                status, body = get(home, cookie, path, connection)
                break
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                body = f"{type(error).__name__}: {error}".encode()
                if not last and isinstance(error, ConnectionError | http.client.RemoteDisconnected):
                    with tally.lock:
                        tally.again += 1
                    continue
                break
        with tally.lock:
            tally.seconds.append(time.monotonic() - begun)
            tally.answers[f"{status or 'none'}"] += 1
            tally.bytes += len(body) if status else 0
            if status != right:
                tally.failures.append(f"{path}: {status}, not {right}: {body[:200].decode(errors='replace')}")


def memory(pid: int) -> dict[str, int]:
    """Of a process, in kB: resident now (VmRSS) and at most (VmHWM); and its threads and open files."""
    status = Path(f"/proc/{pid}/status").read_text()
    named = {name: int(value) for name, value in re.findall(r"(?m)^(VmRSS|VmHWM|Threads):\s+(\d+)", status)}
    return named | {"files": len(os.listdir(f"/proc/{pid}/fd"))}


def processor_seconds(pid: int) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watched(pid: int, tally: Tally, every: int) -> Iterator[tuple[int, dict[str, int]]]:
    """Requests that were answered, and the memory then, until all are."""
    due = 0
    while True:
        done = len(tally.seconds)
        if done >= due or done >= tally.wanted:
            yield done, memory(pid)
            due = done + every
        if done >= tally.wanted:
            return
        time.sleep(0.2)


def main() -> int:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    clients = int(sys.argv[2]) if len(sys.argv) > 2 else 50
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "superscope.cli", "studio", folder, "--no-browser"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            address = next(line for line in server.stdout if line.startswith("http"))
            parts = urllib.parse.urlsplit(address.strip())
            token = urllib.parse.parse_qs(parts.query)["token"][0]
            paths = addresses(parts.netloc, enter(parts.netloc, token))
            tally = Tally(wanted)
            threads = [
                threading.Thread(target=client, args=(parts.netloc, token, paths, tally, seed))
                for seed in range(clients)
            ]
            begun = time.monotonic()
            for thread in threads:
                thread.start()
            seen = []
            for done, now in watched(server.pid, tally, max(wanted // 20, 1)):
                seen.append((done, now["VmRSS"]))
                print(
                    f"{done:6} requests  {now['VmRSS'] / 1e3:6.0f} MB now  {now['VmHWM'] / 1e3:6.0f} MB at most  "
                    f"{now['Threads']:3} threads  {now['files']:3} files  {time.monotonic() - begun:5.0f} s",
                    flush=True,
                )
            for thread in threads:
                thread.join()
            seconds = time.monotonic() - begun
            work = processor_seconds(server.pid)
        finally:
            server.terminate()
            server.wait()
    quantiles = statistics.quantiles(tally.seconds, n=100)
    print(
        f"{len(tally.seconds)} requests by {clients} clients in {seconds:.0f} s ({work:.0f} processor seconds of "
        f"the server), {tally.bytes / 1e6:.0f} MB; an answer after {quantiles[49]:.3f} s (median), "
        f"{quantiles[98]:.2f} s (99 %), {max(tally.seconds):.2f} s (most)"
    )
    told = ", ".join(f"{count} x {status}" for status, count in sorted(tally.answers.items()))
    print(f"answers: {told}; asked again because a kept connection was closed: {tally.again}")
    half = next(size for done, size in seen if done >= wanted // 2)
    print(f"memory after all over after half of them: {seen[-1][1] / half:.3f} (at most {RISE})")
    for failure in tally.failures[:20]:
        print(f"failed: {failure}")
    return int(bool(tally.failures) or seen[-1][1] > RISE * half)


if __name__ == "__main__":
    sys.exit(main())
