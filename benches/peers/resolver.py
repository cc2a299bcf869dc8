#!/usr/bin/env python3
"""What cold names cost: hearthgate beside unbound, below a root, top-level domains and leaf zones that nsd serves,
half of them signed. Counts packets to servers and CPU for each question, first with nothing cached.

Everything runs in a network namespace of its own, whose loopback is the whole Internet; needs root. With LINK=1 the
servers are in another one, behind a relay: 20 ms each way, 1 % of packets lost, the same seed for both contenders and
another for each round. Then the latencies of single questions are told as well."""

import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

from measure import HEARTHGATE as BINARY
from measure import (LOAD_CORE, NODE, ROUNDS, SERVER_CORE, cpu, folder, heading, needs, nsd, run, shell, start, stop,
                     until, write)

SPACE = "hearthgate-resolver"
LINK = os.environ.get("LINK") == "1"
FAR = "hearthgate-servers" if LINK else SPACE
ROOT, TLD, LEAF = ("11.0.1.1", "11.0.2.1", "11.0.3.1") if LINK else ("127.0.1.1", "127.0.2.1", "127.0.3.1")
RELAY = pathlib.Path(__file__).with_name("relay.py")
HEARTHGATE, UNBOUND = 15300, 15301
TLDS, ZONES, HOSTS = 4, int(os.environ.get("ZONES", "400")), int(os.environ.get("HOSTS", "5"))

if os.geteuid() != 0:
    sys.exit("SKIPPED: it needs root, for a network namespace")
needs("nsd", "unbound", "dnsperf", "dig", "taskset", "ip", "nft", "ldns-keygen", "ldns-signzone")
heading(["unbound", "-V"], ["nsd", "-v"], ["dnsperf", "-h"])


def zone(origin, text, signed):
    """Writes a zone and returns its file and its DS record."""
    name = origin.rstrip(".") or "root"
    head = f"$TTL 86400\n{origin} SOA ns.nic.tld0. host.nic.tld0. 1 3600 600 86400 60\n"
    write(name, head + text)
    if not signed:
        return name, ""
    key = shell(f"ldns-keygen -a ECDSAP256SHA256 -k {origin}")
    # A nsec3 chain for every other zone.
    hashed = "-n -t 0" if len(name) % 2 else ""
    shell(f"ldns-signzone {hashed} -o {origin} -f {name}.signed {name} {key}")
    return f"{name}.signed", (folder() / f"{key}.ds").read_text()


leaves, below = [], {f"tld{n}.": "" for n in range(TLDS)}
for number in range(ZONES):
    origin = f"zone{number}.tld{number % TLDS}."
    hosts = "".join(f"host{n}.{origin} A 11.0.{n}.1\n" for n in range(HOSTS))
    file, ds = zone(origin, f"{origin} NS ns.{origin}\nns.{origin} A {LEAF}\n{hosts}", number % 2 == 0)
    leaves.append((origin, file))
    below[f"tld{number % TLDS}."] += f"{origin} NS ns.{origin}\nns.{origin} A {LEAF}\n{ds}\n"
top, tlds = f". NS a.root-servers.net.\na.root-servers.net. A {ROOT}\n", []
for origin, text in below.items():
    file, ds = zone(origin, f"{origin} NS ns.{origin}\nns.{origin} A {TLD}\n{text}", True)
    tlds.append((origin, file))
    top += f"{origin} NS ns.{origin}\nns.{origin} A {TLD}\n{ds}\n"
file, anchor = zone(".", top, True)
write("root.key", anchor)
write("root.hints", f". 3600000 NS a.root-servers.net.\na.root-servers.net. 3600000 A {ROOT}\n")
names = [f"host{n}.{origin} A\n" for n in range(HOSTS) for origin, _ in leaves]
questions = write("questions", "".join(names))


def forget():
    for space in {SPACE, FAR}:
        subprocess.run(["ip", "netns", "del", space], capture_output=True)


def link(seed):
    """Puts the relay between the two namespaces, with this seed."""
    relay = start("relay", ["python3", RELAY, SPACE, "wan", FAR, "lan", 20, 1, seed], LOAD_CORE)
    until("the relay", lambda: "up" in (folder() / "relay.log").read_text())
    shell(f"ip -n {SPACE} addr add 11.0.0.2/8 dev wan && ip -n {SPACE} link set wan up")
    shell(f"ip -n {FAR} addr add 11.0.0.1/32 dev lan && ip -n {FAR} link set lan up")
    shell(f"ip -n {FAR} route add 11.0.0.2 dev lan")
    return relay


forget()
for space in {SPACE, FAR}:
    shell(f"ip netns add {space} && ip -n {space} link set lo up")
if LINK:
    for address in (ROOT, TLD, LEAF):
        shell(f"ip -n {FAR} addr add {address}/32 dev lo")
try:
    rules = write("count.nft", f"""table ip count {{
 counter asked {{ packets 0 bytes 0 }}
 chain out {{
  type filter hook output priority 0;
  ip daddr {{ {ROOT}, {TLD}, {LEAF} }} meta l4proto {{ tcp, udp }} th dport 53 counter name asked
 }}
}}
""")
    shell(f"ip netns exec {SPACE} nft -f {rules}")
    nsd("root-nsd", ROOT, [(".", file)], FAR)
    nsd("tld-nsd", TLD, tlds, FAR)
    nsd("leaf-nsd", LEAF, leaves, FAR)

    def dig(port, *words):
        return run(["dig", "@127.0.0.1", "-p", port, "+time=2", "+tries=1", *words], namespace=SPACE, check=False)

    last = leaves[-1][0]
    until("nsd", lambda: f"host0.{last}" in run(["dig", f"@{LEAF}", f"host0.{last}", "+norec"], namespace=FAR, check=False)
          and "NOERROR" in run(["dig", f"@{LEAF}", f"host0.{last}", "+norec"], namespace=FAR, check=False))

    def packets():
        text = shell(f"ip netns exec {SPACE} nft list counter ip count asked")
        return int(re.search(r"packets (\d+)", text).group(1))

    def start_hearthgate(number):
        state = folder() / f"state{number}"
        state.mkdir(mode=0o700)
        shell(f"chown nobody {state} && chmod a+r root.hints root.key")
        config = write("hearthgate.toml", NODE.replace("@STATE@", str(state)) + f"""
[dns]
listen = ["127.0.0.1:{HEARTHGATE}"]
root_hints = "{folder()}/root.hints"
trust_anchors = "{folder()}/root.key"

[dns.testing]
special_servers = true
""")
        return start("hearthgate", [BINARY, "run", "--testing", "--config", config], SERVER_CORE, SPACE)

    def start_unbound(_):
        config = write("unbound.conf", f"""
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
 root-hints: "{folder()}/root.hints"
 trust-anchor-file: "{folder()}/root.key"
 trust-anchor-signaling: no
 do-not-query-localhost: no
 qname-minimisation: yes
 aggressive-nsec: yes
 harden-below-nxdomain: yes
 use-caps-for-id: yes
 do-ip6: no
 msg-cache-size: 16m
 rrset-cache-size: 8m
remote-control:
 control-enable: no
""")
        return start("unbound", ["unbound", "-d", "-c", config], SERVER_CORE, SPACE)

    def measured(begin, port, number):
        """Asks for every name once, with nothing cached, and again when all is."""
        relay = link(number) if LINK else None
        server = begin(number)
        until("the server", lambda: "status:" in dig(port, "localhost"))
        result = []
        for _ in ("cold", "known"):
            before, used, began = packets(), cpu(server), time.monotonic()
            # No more than one at a time waits for the same zone's keys.
            out = run(["dnsperf", "-s", "127.0.0.1", "-p", port, "-d", questions, "-c", "1", "-q", "8", "-n", "1",
                       *(["-v"] if LINK else [])],
                      namespace=SPACE)
            codes = re.search(r"Response codes:\s+(.*)", out).group(1)
            latency = float(re.search(r"Average Latency \(s\):\s+([\d.]+)", out).group(1))
            count = len(names)
            single = sorted(float(found) for found in re.findall(r"^> \S+ \S+ \S+ ([\d.]+)", out, re.M))
            if single:
                tail = [single[len(single) * part // 100] * 1e3 for part in (50, 99)]
                print(f"  {server.name:12} {number}: p50 {tail[0]:.1f} ms, p99 {tail[1]:.1f} ms")
            result.append(((packets() - before) / count, (cpu(server) - used) / count * 1e6, latency * 1e3, codes))
        secure = " ad" in re.search(r"flags:([^;]*)", dig(port, "+dnssec", f"host0.{leaves[0][0]}")).group(1)
        stop(server)
        if relay:
            stop(relay)
        return result, secure

    contenders = {"hearthgate": (start_hearthgate, HEARTHGATE), "unbound": (start_unbound, UNBOUND)}
    samples = {name: [] for name in contenders}
    for number in range(ROUNDS):
        for name, (begin, port) in contenders.items():
            result, secure = measured(begin, port, number)
            if not secure:
                sys.exit(f"{name} does not validate")
            samples[name].append(result)
    for place, state in enumerate(("cold", "known")):
        print(f"\n{len(names)} names of {ZONES} zones, {state} (median of {ROUNDS}, smallest to largest)")
        medians = {}
        for name, rounds in samples.items():
            columns = list(zip(*(result[place][:3] for result in rounds)))
            medians[name] = [statistics.median(column) for column in columns]
            for unit, column in zip(("packets", "µs CPU ", "ms     "), columns):
                print(f"  {name:12} {statistics.median(column):9.2f} {unit} a question"
                      f"   {min(column):9.2f} to {max(column):9.2f}")
            print(f"  {name:12} {rounds[0][place][3]}")
        ours, theirs = medians["hearthgate"], medians["unbound"]
        ratios = [f"{a / b:.2f}" if b else "-" for a, b in zip(ours, theirs)]
        print(f"  hearthgate / unbound: packets {ratios[0]}, CPU {ratios[1]}, latency {ratios[2]}")
finally:
    forget()
