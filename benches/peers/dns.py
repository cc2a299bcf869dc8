#!/usr/bin/env python3
"""CPU per answer without asking anybody: hearthgate beside unbound, 2000 names, over loopback, validation on.

An nsd on the load's core holds a signed zone with the names; all are asked for before anything is measured. What is
measured: known answers, known denials, and names that a list of a million blocks.

UNBOUND_ROOT names a folder into which another unbound and its libraries were unpacked (for Debian 13: `apt-get download`
and `dpkg -x` of unbound, libc6 and what it is linked with); it is measured too."""

import os
import pathlib
import re
import statistics
import sys

from measure import (NODE, SECONDS, alternate, cpu, edge, folder, heading, needs, nsd, resident, run, shell, start,
                     until, user_cpu, write)

NAMES, LISTED, NSD = 2000, 1_000_000, 15302
HEARTHGATE, FILTERING, UNBOUND, OTHER = 15300, 15303, 15301, 15304

needs("nsd", "unbound", "dnsperf", "dig", "taskset", "ldns-keygen", "ldns-signzone")
root = os.environ.get("UNBOUND_ROOT")
other = []
if root:
    libraries = next(pathlib.Path(root).glob("usr/lib/*-linux-gnu*"))
    loader = next(pathlib.Path(root).glob("usr/lib*/ld-linux*"))
    other = [loader, "--library-path", libraries, pathlib.Path(root) / "usr/sbin/unbound"]
heading(["unbound", "-V"], *([[*map(str, other), "-V"]] if other else []), ["nsd", "-v"], ["dnsperf", "-h"])
if not other:
    print("SKIPPED: no other unbound, UNBOUND_ROOT is not set")


zone = "$ORIGIN bench.tld.\n$TTL 86400\n@ SOA ns hostmaster 1 3600 600 86400 86400\n@ NS ns\nns A 11.0.0.1\n"
zone += "".join(f"host{n} A 11.1.{n // 250}.{n % 250 + 1}\n" for n in range(NAMES))
write("bench.zone", zone)
key = shell("ldns-keygen -a ECDSAP256SHA256 -k bench.tld.")
shell(f"ldns-signzone -o bench.tld. -f bench.signed bench.zone {key}")
anchor = write("anchor", (folder() / f"{key}.ds").read_text())
anchor.chmod(0o644)
write("blocked", "".join(f"host{n}.blocked.tld\n" for n in range(NAMES)))
write("list", "".join(f"host{n % 7}.name{n * 0x9e3779b97f4a7c15 % 2**64 >> 24:x}.example\n" for n in range(LISTED)))
questions = {what: write(f"questions-{what}", "".join(f"{name}{n}.{zone} A\n" for n in range(NAMES)))
             for what, name, zone in [("positive", "host", "bench.tld"), ("negative", "nothing", "bench.tld"),
                                      ("blocked", "host", "blocked.tld")]}
nsd("nsd", f"127.0.0.1@{NSD}", [("bench.tld", "bench.signed")])


def start_unbound(name, command, port):
    config = write(f"{name}.conf", f"""
server:
 interface: 127.0.0.1
 port: {port}
 num-threads: 1
 do-daemonize: no
 username: ""
 chroot: ""
 directory: "{folder()}"
 pidfile: ""
 use-syslog: no
 do-not-query-localhost: no
 trust-anchor-file: "{anchor}"
 trust-anchor-signaling: no
 module-config: "validator iterator"
 msg-cache-size: 16m
 rrset-cache-size: 16m
 so-reuseport: yes
remote-control:
 control-enable: no
forward-zone:
 name: "bench.tld"
 forward-addr: 127.0.0.1@{NSD}
""")
    return port, start(name, [*command, "-d", "-c", config])


def start_hearthgate(name, port, lists=""):
    return port, edge(name, NODE + f"""
[dns]
listen = ["127.0.0.1:{port}"]
trust_anchors = "{anchor}"

[[dns.forward]]
zone = "bench.tld"
to   = ["127.0.0.1:{NSD}"]
""" + lists)


versions = {"unbound": start_unbound("unbound", ["unbound"], UNBOUND)}
if other:
    versions["unbound, the other"] = start_unbound("other", other, OTHER)
servers = {"hearthgate": start_hearthgate("hearthgate", HEARTHGATE)} | versions
filtering = start_hearthgate("filtering", FILTERING, """
[[dns.list]]
name   = "few"
source = "@FOLDER@/blocked"
action = "block"

[[dns.list]]
name   = "many"
source = "@FOLDER@/list"
action = "block"

[[dns.group]]
name  = "default"
lists = ["few", "many"]
""")


def dig(port, name):
    return run(["dig", "@127.0.0.1", "-p", port, name, "+dnssec", "+time=1", "+tries=1"], check=False)


def ask(port, what, *more):
    out = run(["dnsperf", "-s", "127.0.0.1", "-p", port, "-d", questions[what], "-c", "8", "-T", "1", "-q", "64", *more])
    codes = re.search(r"Response codes:\s+(.*)", out).group(1)
    if not codes.startswith("NXDOMAIN" if what == "negative" else "NOERROR") or "," in codes:
        sys.exit(f"not all answers were good: {codes}")
    lost = float(re.search(r"Queries lost:\s+\d+ \(([\d.]+)%\)", out).group(1))
    if lost > 1:
        sys.exit(f"{lost} % of the questions were lost")
    return int(re.search(r"Queries completed:\s+(\d+)", out).group(1))


used = {}


def measured(name, place, what="positive"):
    port, server = place

    def once():
        before, before_user = cpu(server), user_cpu(server)
        answers = ask(port, what, "-l", str(SECONDS))
        used.setdefault((name, what), []).append((user_cpu(server) - before_user) / answers * 1e6)
        return answers, cpu(server) - before

    return once


for name, place in (servers | {"filtering": filtering}).items():
    until(name, lambda: "11.1.0.8" in dig(place[0], "host7.bench.tld"), 60)
    if " ad" not in re.search(r"flags:([^;]*)", dig(place[0], "host7.bench.tld")).group(1):
        sys.exit(f"{name} does not validate")
    for what in ("positive", "negative"):
        ask(place[0], what, "-n", "3")

alternate("DNS, known answers over UDP", "µs of CPU per answer", 1e6,
          {name: measured(name, place) for name, place in servers.items()})
alternate("DNS, known denials over UDP", "µs of CPU per answer", 1e6,
          {name: measured(name, place, "negative") for name, place in servers.items()})
alternate(f"DNS, with {LISTED:,} names blocked", "µs of CPU per answer", 1e6, {
    f"hearthgate, {what}": measured("hearthgate, lists", filtering, what) for what in ("positive", "blocked", "negative")
})
print("\nof these in user space (µs per answer, median)")
for (name, what), values in used.items():
    print(f"  {name + ', ' + what:34} {statistics.median(values):6.2f}   {min(values):6.2f} to {max(values):6.2f}")
for name, (_, server) in (servers | {"hearthgate, lists": filtering}).items():
    print(f"  {name:28} {resident(server):9.1f} MiB resident")
