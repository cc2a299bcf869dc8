#!/usr/bin/env python3
"""CPU per cached answer: hearthgate beside unbound, 2000 names, over loopback.

An nsd on the load's core holds the names; both are asked once for all of them before anything is measured."""

import re
import sys

from measure import (LOAD_CORE, NODE, SECONDS, alternate, cpu, edge, folder, heading, needs, resident, run, start, until,
                     write)

NAMES, HEARTHGATE, UNBOUND, NSD = 2000, 15300, 15301, 15302

needs("nsd", "unbound", "dnsperf", "dig", "taskset")
heading(["unbound", "-V"], ["nsd", "-v"], ["dnsperf", "-h"])

zone = "$ORIGIN bench.tld.\n$TTL 86400\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 11.0.0.1\n"
zone += "".join(f"host{n} A 11.1.{n // 250}.{n % 250 + 1}\n" for n in range(NAMES))
write("bench.zone", zone)
questions = write("questions", "".join(f"host{n}.bench.tld A\n" for n in range(NAMES)))
nsd = write("nsd.conf", f"""
server:
 ip-address: 127.0.0.1@{NSD}
 username: ""
 zonesdir: "{folder()}"
 pidfile: ""
 database: ""
 zonelistfile: "{folder()}/nsd.list"
 xfrdfile: "{folder()}/nsd.xfrd"
 server-count: 1
 rrl-ratelimit: 0
remote-control:
 control-enable: no
zone:
 name: bench.tld
 zonefile: bench.zone
""")
start("nsd", ["nsd", "-d", "-c", nsd], LOAD_CORE)
unbound = write("unbound.conf", f"""
server:
 interface: 127.0.0.1
 port: {UNBOUND}
 num-threads: 1
 do-daemonize: no
 username: ""
 chroot: ""
 directory: "{folder()}"
 pidfile: ""
 use-syslog: no
 do-not-query-localhost: no
 msg-cache-size: 16m
 rrset-cache-size: 16m
 so-reuseport: yes
remote-control:
 control-enable: no
forward-zone:
 name: "."
 forward-addr: 127.0.0.1@{NSD}
""")
servers = {
    "hearthgate": (HEARTHGATE, edge("hearthgate", NODE + f"""
[dns]
listen = ["127.0.0.1:{HEARTHGATE}"]

[[dns.forward]]
zone = "bench.tld"
to   = ["127.0.0.1:{NSD}"]
""")),
    "unbound": (UNBOUND, start("unbound", ["unbound", "-d", "-c", unbound])),
}


def answered(port):
    out = run(["dig", "@127.0.0.1", "-p", port, "host7.bench.tld", "+short", "+time=1", "+tries=1"], check=False)
    return "11.1.0.8" in out


def ask(port, *more):
    out = run(["dnsperf", "-s", "127.0.0.1", "-p", port, "-d", questions, "-c", "8", "-T", "1", "-q", "64", *more])
    codes = re.search(r"Response codes:\s+(.*)", out).group(1)
    if not codes.startswith("NOERROR") or "," in codes:
        sys.exit(f"not all answers were good: {codes}")
    lost = float(re.search(r"Queries lost:\s+\d+ \(([\d.]+)%\)", out).group(1))
    if lost > 1:
        sys.exit(f"{lost} % of the questions were lost")
    return int(re.search(r"Queries completed:\s+(\d+)", out).group(1))


def measured(name):
    port, server = servers[name]

    def once():
        before = cpu(server)
        answers = ask(port, "-l", str(SECONDS))
        return answers, cpu(server) - before

    return once


for name, (port, _) in servers.items():
    until(name, lambda: answered(port))
    ask(port, "-n", "3")
alternate("DNS, cached answers over UDP", "µs of CPU per answer", 1e6, {name: measured(name) for name in servers})
for name, (_, server) in servers.items():
    print(f"  {name:28} {resident(server):9.1f} MiB resident")
