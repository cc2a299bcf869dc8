#!/usr/bin/env python3
"""DNS under a load that is too much: CPU per answer with 10 000 client addresses, answers a second when twice as much is
asked as can be answered, and what other clients see of one that floods random names. Needs root: the clients are in a
namespace of their own, because limits per client hold on the LAN and not on loopback; nothing leaves it."""

import json
import os
import pathlib
import statistics
import sys
import threading

from measure import (NODE, ROUNDS, SECONDS, SERVER_CORE, alternate, cpu, edge, heading, ip, namespaces, needs, nsd,
                     resident, run, start, stop, until, write)

if os.geteuid() != 0:
    sys.exit("SKIPPED: it needs root")
needs("ip", "nsd", "dnsperf", "dig", "taskset")
heading(["nsd", "-v"])

HOUSE, CLIENTS = (f"hgb-{os.getpid()}-{name}" for name in ("house", "clients"))
SERVER, ROUTER, NAMES, NSD = "10.8.0.1", "10.8.0.2", 2000, 5353
# The share of the peak that must be left, and the share of others' answers that a flood may cost.
GOODPUT, LOST = 0.9, 0.002


namespaces(HOUSE, CLIENTS)
ip(f"link add eth0 netns {HOUSE} type veth peer name eth0 netns {CLIENTS}")
for namespace, address in (HOUSE, SERVER), (CLIENTS, ROUTER):
    ip(f"addr add {address}/24 dev eth0", namespace)
    ip("link set eth0 up", namespace)
# All of them are this namespace's, behind one router, so that the house need not ask for each.
ip("route add local 10.9.0.0/16 dev lo", CLIENTS)
ip(f"route add 10.9.0.0/16 via {ROUTER}", HOUSE)

zone = "$ORIGIN bench.tld.\n$TTL 86400\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 11.0.0.1\n"
zone += "".join(f"host{n} A 11.1.{n // 250}.{n % 250 + 1}\n" for n in range(NAMES))
write("bench.zone", zone)
questions = write("questions", "".join(f"host{n}.bench.tld A\n" for n in range(NAMES)))
nsd("nsd", f"{ROUTER}@{NSD}", [("bench.tld", "bench.zone")], CLIENTS)
hearthgate = edge("hearthgate", NODE + f"""
[lan]
interfaces = ["eth0"]
subnets    = ["10.9.0.0/16"]

[dns]
listen = ["{SERVER}:53", "127.0.0.1:53"]

[[dns.forward]]
zone = "bench.tld"
to   = ["{ROUTER}:{NSD}"]
""", namespace=HOUSE)


def crowd(**what):
    what |= {"server": [SERVER, 53], "names": NAMES}
    program = pathlib.Path(__file__).with_name("crowd.py")
    return json.loads(run([sys.executable, program, json.dumps(what)], namespace=CLIENTS))


until("hearthgate", lambda: "11.1.0.8" in run(["dig", "@127.0.0.1", "host7.bench.tld", "+short", "+time=1", "+tries=1"],
                                              namespace=HOUSE, check=False))
run(["dnsperf", "-s", "127.0.0.1", "-d", questions, "-c", "4", "-q", "8", "-n", "3"], namespace=HOUSE)


def measured(count):
    def once():
        before = cpu(hearthgate)
        done = crowd(do="ask", first="10.9.0.1", count=count, seconds=SECONDS)
        if done["good"] < 0.9 * done["asked"]:
            sys.exit(f"too few answers: {done}")
        return done["good"], cpu(hearthgate) - before
    return once


alternate("DNS, known answers over UDP, on the LAN with limits", "µs of CPU per answer", 1e6,
          {"10,000 addresses": measured(10_000), "250 addresses": measured(250)})

# Two others on its core: a third of it is left, so that there can be asked for more than it can do.
burners = [start(f"burner{n}", ["sh", "-c", "while :; do :; done"], SERVER_CORE) for n in range(2)]
peaks, over = [], []
for _ in range(ROUNDS):
    peaks.append(crowd(do="ask", first="10.9.0.1", count=10_000, seconds=SECONDS)["good"] / SECONDS)
    done = crowd(do="ask", first="10.9.0.1", count=10_000, seconds=SECONDS, rate=2 * peaks[-1])
    over.append((done["asked"] / SECONDS, done["good"] / SECONDS))
for burner in burners:
    stop(burner)
peak, asked, goodput = statistics.median(peaks), *(statistics.median(column) for column in zip(*over))
print(f"\nDNS, twice as much as can be answered (a third of a core, 10,000 addresses, median of {ROUNDS})")
print(f"  peak {peak:,.0f} answers a second; asked {asked:,.0f} a second ({asked / peak:.2f} times), {goodput:,.0f} "
      f"answered: {goodput / peak:.2f} of the peak")

print(f"\nDNS, 50 clients with 10 questions a second each, names that are known (median of {ROUNDS})")


def victims():
    return crowd(do="victims", first="10.9.128.1", count=50, seconds=SECONDS)


def flooded():
    result = {}
    flood = threading.Thread(target=lambda: result.update(crowd(do="flood", first="10.9.200.1", count=1,
                                                                seconds=SECONDS + 1, rate=50_000)))
    flood.start()
    seen = victims()
    flood.join()
    return seen | {"flood": result["asked"] / (SECONDS + 1)}


quiet, loud = [], []
for _ in range(ROUNDS):
    quiet.append(victims())
    loud.append(flooded())
middle = lambda rounds, key: statistics.median(one[key] for one in rounds)
for what, rounds in ("alone", quiet), ("beside one that floods", loud):
    asked, lost = sum(one["asked"] for one in rounds), sum(one["lost"] for one in rounds)
    print(f"  {what:24} {lost} of {asked} lost, p50 {middle(rounds, 'p50'):.2f} ms, p99 {middle(rounds, 'p99'):.2f} ms")
print(f"  the flood: {middle(loud, 'flood'):,.0f} random names a second from one address")
print(f"  hearthgate {resident(hearthgate):9.1f} MiB resident")
lost = sum(one["lost"] for one in loud) / sum(one["asked"] for one in loud)
failed = goodput < GOODPUT * peak or lost > LOST
sys.exit(1 if failed else 0)
