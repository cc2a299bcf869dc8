#!/usr/bin/env python3
"""The LAN through the tunnel, routed by the kernel: iperf3 between a wireguard-go client and a host behind the gate, once
with hearthgate as the gate (mode tun, and userspace where it relays), once with wireguard-go. CPU seconds of the gate
per GB, Gbit/s, retransmissions, latency. Needs root: the namespaces are its own, nothing leaves them."""

import json
import os
import statistics
import subprocess
import sys

from measure import (LOAD_CORE, NODE, ROUNDS, SECONDS, SERVER_CORE, cpu, edge, folder, heading, ip, namespaces, needs,
                     resident, run, start, until, write)

if os.geteuid() != 0:
    sys.exit("SKIPPED: it needs root")
needs("ip", "wg", "wireguard-go", "iperf3", "ping", "taskset")
heading(["wireguard-go", "--version"], ["iperf3", "--version"])

GATE, CLIENT, LAN = (f"hgb-{os.getpid()}-{name}" for name in ("gate", "client", "lan"))
at = folder()
tag = os.getpid() % 100000


namespaces(GATE, CLIENT, LAN)
ip(f"link add eth0 netns {GATE} type veth peer name eth0 netns {CLIENT}")
ip(f"link add eth1 netns {GATE} type veth peer name eth0 netns {LAN}")
for namespace, device, address in (GATE, "eth0", "192.168.77.1"), (CLIENT, "eth0", "192.168.77.2"), \
        (GATE, "eth1", "192.168.78.1"), (LAN, "eth0", "192.168.78.2"):
    ip(f"addr add {address}/24 dev {device}", namespace)
    ip(f"link set {device} up", namespace)
ip("route add default via 192.168.78.1", LAN)
run(["sysctl", "-qw", "net.ipv4.ip_forward=1"], namespace=GATE)


def key():
    private = subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout.strip()
    public = subprocess.run(["wg", "pubkey"], input=private, capture_output=True, text=True, check=True).stdout.strip()
    return private, public


def tunnel(name, namespace, core, private, address, peer, allowed, listen=None, endpoint=None, program="wireguard-go"):
    child = start(name, [program, "-f", name], core, namespace, env=dict(os.environ, LOG_LEVEL="error"))
    until(name, lambda: subprocess.run(["ip", "-n", namespace, "link", "show", name], capture_output=True).returncode == 0)
    config = f"[Interface]\nPrivateKey = {private}\n" + (f"ListenPort = {listen}\n" if listen else "")
    config += f"[Peer]\nPublicKey = {peer}\nAllowedIPs = {allowed}\n" + (f"Endpoint = {endpoint}\n" if endpoint else "")
    subprocess.run(["ip", "netns", "exec", namespace, "wg", "setconf", name, write(f"{name}.conf", config)], check=True)
    ip(f"addr add {address}/32 dev {name}", namespace)
    ip(f"link set {name} up mtu 1420", namespace)
    return child


PEER_PROGRAM = os.environ.get("WIREGUARD_GO", "wireguard-go")
gates, devices = {}, {}
for number, (name, mode) in enumerate([("hearthgate tun", "tun"), ("hearthgate userspace", "userspace"), ("wireguard-go", None)]):
    gate_key, client_key = key(), key()
    port, inner, own = 51820 + number, f"10.{77 + number}.0", f"wc{number}x{tag}"
    if mode:
        write(f"{mode}.key", gate_key[0] + "\n")
        os.chown(at / f"{mode}.key", 65534, 65534)
        (at / f"{mode}.key").chmod(0o600)
        gates[name] = edge(f"hearthgate-{mode}", NODE + f"""
[vpn]
listen      = ["192.168.77.1:{port}"]
endpoint    = "192.168.77.1:{port}"
addresses   = ["{inner}.1/24"]
mode        = "{mode}"
lan         = "route"
private_key = "@FOLDER@/{mode}.key"

[[vpn.peer]]
name       = "bench"
public_key = "{client_key[1]}"
addresses  = ["{inner}.2/32"]
may_reach  = ["192.168.78.0/24"]
""", core=SERVER_CORE, namespace=GATE)
    else:
        gates[name] = tunnel(f"wg{tag}", GATE, SERVER_CORE, gate_key[0], f"{inner}.1", client_key[1], f"{inner}.2/32",
                             listen=port, program=PEER_PROGRAM)
        ip(f"route add {inner}.0/24 dev wg{tag}", GATE)
    tunnel(own, CLIENT, LOAD_CORE, client_key[0], f"{inner}.2", gate_key[1], f"{inner}.0/24, 192.168.78.0/24",
           endpoint=f"192.168.77.1:{port}", program=os.environ.get("CLIENT_WIREGUARD_GO", "wireguard-go"))
    devices[name] = (own, f"{inner}.2")
start("iperf3", ["iperf3", "-s", "-B", "192.168.78.2"], LOAD_CORE, LAN)


def through(name):
    own, address = devices[name]
    ip(f"route replace 192.168.78.0/24 dev {own} src {address}", CLIENT)


def iperf(name, *arguments):
    through(name)
    before = cpu(gates[name])
    said = json.loads(run(["iperf3", "-c", "192.168.78.2", "-J", "-t", SECONDS, *arguments], namespace=CLIENT, timeout=60))
    used = cpu(gates[name]) - before
    end = said["end"]
    total = end.get("sum_received") or end["sum"]
    sent = end.get("sum_sent", {})
    gbit = total["bytes"] * 8 / 1e9
    return gbit / SECONDS, gbit / max(used, 0.01), sent.get("retransmits", end.get("sum", {}).get("lost_percent", 0))


def ping(name, *arguments):
    through(name)
    out = run(["ping", "-q", "-i", "0.01", "-c", "200", *arguments, "192.168.78.2"], namespace=CLIENT, check=False)
    return next((line.split("=")[1].split("/")[1] for line in out.splitlines() if "min/avg" in line), "-")


def reaches(name):
    through(name)
    done = subprocess.run(["ip", "netns", "exec", CLIENT, "iperf3", "-c", "192.168.78.2", "-n", "1K"], capture_output=True, timeout=20)
    return done.returncode == 0


for name in gates:
    until(f"the LAN through {name}", lambda: reaches(name))
for title, arguments in [("one stream into the LAN", []), ("one stream out of it", ["-R"]),
                         ("ten streams into the LAN", ["-P", "10"]), ("ten streams out of it", ["-P", "10", "-R"])]:
    print(f"\n{title} (Gbit/s, Gbit per CPU second of the gate, retransmissions; median of {ROUNDS} alternating runs)")
    found = {name: [] for name in gates}
    for _ in range(ROUNDS):
        for name in gates:
            found[name].append(iperf(name, *arguments))
    for name, runs in found.items():
        median = [statistics.median(values) for values in zip(*runs)]
        print(f"  {name:22} {median[0]:6.2f} {median[1]:6.2f} {median[2]:8.0f}")
    sys.stdout.flush()
print("\nlatency, ms (average of 200)")
for name in gates:
    if name != "hearthgate userspace":
        print(f"  {name:22} {ping(name)}")
print("\nresident, MiB")
for name, gate in gates.items():
    print(f"  {name:22} {resident(gate):6.1f}")
