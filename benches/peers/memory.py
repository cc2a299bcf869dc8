#!/usr/bin/env python3
"""Resident memory of the quick start: after it came up, and after some use. Its ports are fixed; as root it gets a
namespace and an ordinary user of its own.

Then of the DNS plane alone with a million blocked names: with full caches, at the peak of a refresh, and how long it
takes from exec to the first name that is blocked, with nothing of program and table in the page cache."""

import atexit
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

from measure import HEARTHGATE, NODE, edge, folder, heading, needs, nsd, resident, run, start, stop, until, write

needs("curl", "dig", "dnsperf", "nsd", "strip", "taskset")
heading(["nsd", "-v"], ["dnsperf", "-h"])

LIMIT = 32
# MiB of the DNS plane alone: with full caches, at the peak of a refresh; and ms to the first filtered answer.
FULL, PEAK, FIRST = 48, 72, 200
LISTED, ASKED, DNS, NSD = 1_000_000, 200_000, 15320, 15321
state = folder() / "state"
state.mkdir(mode=0o700)
namespace, command = None, [HEARTHGATE, "run", "--state", state]
if os.geteuid() == 0:
    namespace = f"hgb-{os.getpid()}-memory"
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    atexit.register(subprocess.run, ["ip", "netns", "del", namespace])
    subprocess.run(["ip", "-n", namespace, "link", "set", "lo", "up"], check=True)
    shutil.chown(state, "nobody")
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
hearthgate = start("hearthgate", command, "0,1", namespace)


def answered():
    return "192.168" in run(["dig", "@127.0.0.1", "-p", "5300", "nas.home.arpa", "+short"], namespace=namespace, check=False)


until("the quick start", answered)
print(f"  after it came up             {resident(hearthgate):9.1f} MiB resident")
for n in range(200):
    run(["dig", "@127.0.0.1", "-p", "5300", "nas.home.arpa", "blocked.example", "+short"], namespace=namespace)
    run(["curl", "-sk", "--resolve", "welcome.home.arpa:8443:127.0.0.1", "https://welcome.home.arpa:8443/"],
        namespace=namespace)
used = resident(hearthgate)
print(f"  after 400 questions, 200 pages {used:7.1f} MiB resident (at most {LIMIT} are promised)")
stop(hearthgate)

print(f"\nDNS alone, {LISTED:,} names blocked, default caches")
zone = "$ORIGIN bench.tld.\n$TTL 86400\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 11.0.0.1\n* A 11.1.0.1\n"
write("bench.zone", zone)
questions = write("questions", "".join(f"host{n}.bench.tld A\n" for n in range(ASKED)))
listed = write("list", "".join(f"host{n % 7}.name{n * 0x9e3779b97f4a7c15 % 2**64 >> 24:x}.example\n" for n in range(LISTED)))
at = folder()
nsd("nsd", f"127.0.0.1@{NSD}", [("bench.tld", "bench.zone")])
config = NODE + f"""
[dns]
listen = ["127.0.0.1:{DNS}"]

[[dns.forward]]
zone = "bench.tld"
to   = ["127.0.0.1:{NSD}"]

[[dns.list]]
name   = "many"
source = "@FOLDER@/list"
action = "block"

[[dns.group]]
name  = "default"
lists = ["many"]
"""


def ask(name, wait=1.0):
    """Asks for an address; nothing if nobody answers."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(wait)
        client.connect(("127.0.0.1", DNS))
        try:
            client.send(b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0" + labels + b"\0\0\x01\0\x01")
            return client.recv(512)
        except OSError:
            return b""


def blocks(name, wait=1.0):
    return ask(name, wait).endswith(b"\0\0\0\0")


def status(server, line):
    text = pathlib.Path(f"/proc/{server.pid}/status").read_text()
    return int(re.search(rf"{line}:\s+(\d+) kB", text).group(1)) / 1024


# What it keeps of the first start is what the next ones find.
first = edge("plane", config)
until("the plane", lambda: blocks("host0.name0.example"), 60)
print(f"  after it made the table      {resident(first):9.1f} MiB resident")
stop(first)


def cold(file):
    """Takes a file out of the page cache."""
    opened = os.open(file, os.O_RDONLY)
    os.fsync(opened)
    os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(opened)


binary = at / "hearthgate"
subprocess.run(["strip", "-o", binary, HEARTHGATE], check=True)
command = [binary, "run", "--config", at / "plane.toml"]
times = []
for _ in range(7):
    cold(binary)
    cold(at / "plane-state/lists/table")
    began = time.monotonic()
    plane = subprocess.Popen(["taskset", "-c", "0,1", *map(str, command)], stderr=subprocess.DEVNULL)
    while not blocks("host0.name0.example", 0.01) and time.monotonic() < began + 20:
        time.sleep(0.001)
    times.append((time.monotonic() - began) * 1e3)
    plane.terminate()
    plane.wait()
print(f"  exec to first blocked answer {statistics.median(times):9.0f} ms, {min(times):.0f} to {max(times):.0f} "
      f"(under {FIRST} are promised)")

plane = start("plane", command, "0,1")
until("the plane", lambda: blocks("host0.name0.example"))
print(f"  after it found the table     {resident(plane):9.1f} MiB resident")
run(["dnsperf", "-s", "127.0.0.1", "-p", DNS, "-d", questions, "-c", "8", "-q", "20", "-n", "1"])
# Every page of the table is looked at.
run(["dnsperf", "-s", "127.0.0.1", "-p", DNS, "-d", write("listed", listed.read_text().replace("\n", " A\n")),
     "-c", "8", "-q", "20", "-n", "1"])
full = resident(plane)
print(f"  with full caches             {full:9.1f} MiB resident (under {FULL} are promised), of it "
      f"{status(plane, 'RssFile'):.1f} of files")
pathlib.Path(f"/proc/{plane.pid}/clear_refs").write_text("5")
with listed.open("a") as more:
    more.write("late.example\n")
plane.send_signal(signal.SIGHUP)
until("the refresh", lambda: blocks("late.example"), 60)
peak = status(plane, "VmHWM")
print(f"  at the peak of a refresh     {peak:9.1f} MiB resident (under {PEAK} are promised)")
print(f"  after it                     {resident(plane):9.1f} MiB resident")
sys.exit(0 if used < LIMIT and full < FULL and peak < PEAK else 1)
