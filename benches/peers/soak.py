#!/usr/bin/env python3
"""Steady use for some time (soak.py SECONDS, else 120): questions, requests and reloads. Memory, open files and
threads after the first fifth must be those at the end, and no answer may be missing."""

import os
import pathlib
import re
import signal
import sys
import time

from measure import LOAD_CORE, NODE, edge, folder, heading, needs, resident, run, start, until, write

SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 120
DNS, HTTPS, UPSTREAM = 15310, 18453, 18011
# Caches fill and allocators keep some of what they had: more than this is a leak.
MAY_GROW_MIB = 8

needs("dnsperf", "wrk", "nginx", "dig", "curl", "taskset")
heading(["dnsperf", "-h"], ["wrk", "-v"])

at = folder()
run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
     "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", at / "key.pem",
     "-out", at / "cert.pem"])
(at / "key.pem").chmod(0o644)
scratch = "".join(f"{kind}_temp_path {at}/{kind}; " for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
nginx = write("nginx.conf", f"daemon off; master_process off; pid {at}/pid; error_log stderr;\nevents {{}}\nhttp {{ "
              f"access_log off; {scratch} server {{ listen 127.0.0.1:{UPSTREAM}; location / {{ return 200 'ok\\n'; }} }} }}\n")
start("nginx", ["nginx", "-c", nginx, "-e", "stderr"], LOAD_CORE)
questions = write("questions", "".join(f"host{n}.home.arpa A\n" for n in range(500)) + "blocked.example A\n" * 100)
records = "\n".join(f'host{n} = ["192.168.1.{n % 250 + 1}"]' for n in range(500))
hearthgate = edge("hearthgate", NODE + f"""
[dns]
listen = ["127.0.0.1:{DNS}"]

[dns.records]
{records}

[[dns.list]]
name   = "ads"
names  = ["blocked.example"]
action = "block"

[[dns.group]]
name  = "default"
lists = ["ads"]

[ingress]
http  = ["127.0.0.1:18090"]
https = ["127.0.0.1:{HTTPS}"]
certificates = [{{ hosts = ["localhost"], cert = "@FOLDER@/cert.pem", key = "@FOLDER@/key.pem" }}]

[[route]]
host   = "localhost"
access = "public"
to     = ["http://127.0.0.1:{UPSTREAM}"]
""")
until("hearthgate", lambda: run(["curl", "-sk", f"https://localhost:{HTTPS}/"], check=False) == "ok\n")


def held():
    files = len(list(pathlib.Path(f"/proc/{hearthgate.pid}/fd").iterdir()))
    threads = len(list(pathlib.Path(f"/proc/{hearthgate.pid}/task").iterdir()))
    return resident(hearthgate), files, threads


def use():
    """A round: questions, requests over kept and over new connections, a reload."""
    out = run(["dnsperf", "-s", "127.0.0.1", "-p", str(DNS), "-d", questions, "-l", "2", "-c", "20", "-q", "50"])
    lost = float(re.search(r"Queries lost:\s+\d+ \(([\d.]+)%\)", out).group(1))
    if lost > 1 or "SERVFAIL" in out:
        sys.exit(f"FAILED: {out}")
    for fields in [], ["-H", "Connection: close"]:
        out = run(["wrk", "-t1", "-c30", "-d2s", *fields, f"https://localhost:{HTTPS}/"])
        if "Non-2xx" in out:
            sys.exit(f"FAILED: {out}")
    os.kill(hearthgate.pid, signal.SIGHUP)
    time.sleep(0.5)
    if hearthgate.poll() is not None:
        sys.exit("FAILED: it ended: " + (at / "hearthgate.log").read_text()[-4000:])


began = time.monotonic()
first = None
while time.monotonic() - began < SECONDS:
    use()
    if first is None and time.monotonic() - began > SECONDS / 5:
        first = held()
last = held()
first = first or last
for what, a, b in zip(["MiB resident", "open files", "threads"], first, last):
    print(f"  {what:14} {a:8.1f} after a fifth, {b:8.1f} at the end")
grown = last[0] - first[0] > MAY_GROW_MIB or last[1] > first[1] + 50 or last[2] > first[2] + 2
sys.exit("FAILED: it grows" if grown else 0)
