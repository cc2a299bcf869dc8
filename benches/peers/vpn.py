#!/usr/bin/env python3
"""CPU per gigabyte through the tunnel, one stream: a wireguard-go client in one namespace downloads 200 MB over
HTTPS, once through hearthgate's gate and ingress, once through a wireguard-go gate and an nginx in front of the same
upstream. Then what floods cost the gate, at rest and beside that stream. Needs root: the namespaces are its own, nothing leaves them."""

import os
import pathlib
import select
import statistics
import subprocess
import sys
import time

from measure import (LOAD_CORE, NODE, ROUNDS, alternate, cpu, edge, folder, heading, ip, namespaces, needs, resident, run,
                     start, until, user_cpu, write)

if os.geteuid() != 0:
    sys.exit("SKIPPED: it needs root")
needs("ip", "wg", "wireguard-go", "nginx", "curl", "openssl", "taskset")
heading(["wireguard-go", "--version"], ["nginx", "-v"], ["curl", "--version"])

SIZE = 200_000_000
GATE, CLIENT = f"hgb-{os.getpid()}-gate", f"hgb-{os.getpid()}-client"
at = folder()


namespaces(GATE, CLIENT)
ip(f"link add eth0 netns {GATE} type veth peer name eth0 netns {CLIENT}")
for namespace, last in (GATE, 1), (CLIENT, 2):
    ip(f"addr add 192.168.77.{last}/24 dev eth0", namespace)
    ip("link set eth0 up", namespace)


def key():
    private = subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout.strip()
    public = subprocess.run(["wg", "pubkey"], input=private, capture_output=True, text=True, check=True).stdout.strip()
    return private, public


def tunnel(name, namespace, core, private, address, peer, listen=None, endpoint=None, route=None):
    """Starts a wireguard-go with one peer."""
    child = start(name, ["wireguard-go", "-f", name], core, namespace, env=dict(os.environ, LOG_LEVEL="error"))
    until(name, lambda: subprocess.run(["ip", "-n", namespace, "link", "show", name], capture_output=True).returncode == 0)
    config = f"[Interface]\nPrivateKey = {private}\n" + (f"ListenPort = {listen}\n" if listen else "")
    config += f"[Peer]\nPublicKey = {peer}\nAllowedIPs = {route}\n" + (f"Endpoint = {endpoint}\n" if endpoint else "")
    file = write(f"{name}.conf", config)
    subprocess.run(["ip", "netns", "exec", namespace, "wg", "setconf", name, file], check=True)
    ip(f"addr add {address}/32 dev {name}", namespace)
    ip(f"link set {name} up mtu 1420", namespace)
    ip(f"route add {route} dev {name}", namespace)
    return child


run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
     "-subj", "/CN=bench.home.arpa", "-addext", "subjectAltName=DNS:bench.home.arpa", "-keyout", at / "key.pem",
     "-out", at / "cert.pem"])
(at / "key.pem").chmod(0o644)
(at / "big").write_bytes(b"." * SIZE)
scratch = "".join(f"{kind}_temp_path {at}/@NAME@-{kind}; " for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])


def nginx(name, http, core):
    config = write(f"{name}.conf", f"daemon off; master_process off; pid {at}/{name}.pid; error_log stderr;\n"
                   f"events {{}}\nhttp {{ access_log off; sendfile on; {scratch.replace('@NAME@', name)}\n{http}\n}}\n")
    return start(name, ["nginx", "-c", config, "-e", "stderr"], core, GATE)


nginx("upstream", f"server {{ listen 127.0.0.1:8001; root {at}; }}", LOAD_CORE)
proxy = nginx("nginx", f"server {{ listen 10.78.0.1:443 ssl; ssl_certificate {at}/cert.pem; ssl_certificate_key "
              f"{at}/key.pem; location / {{ proxy_pass http://127.0.0.1:8001; proxy_max_temp_file_size 0; }} }}",
              "0") if ip("addr add 10.78.0.1/32 dev lo", GATE) is None else None
gate_key, client_key = key(), key()
tag = os.getpid() % 100000
wireguard = tunnel(f"wgg{tag}", GATE, "0", gate_key[0], "10.78.0.1", client_key[1], listen=51821, route="10.78.0.2/32")
tunnel(f"wgc{tag}", CLIENT, LOAD_CORE, client_key[0], "10.78.0.2", gate_key[1], endpoint="192.168.77.1:51821",
       route="10.78.0.1/32")

write("gate.key", gate_key[0] + "\n")
os.chown(at / "gate.key", 65534, 65534)
(at / "gate.key").chmod(0o600)
hearthgate = edge("hearthgate", NODE + f"""
[ingress]
http  = ["127.0.0.1:80"]
https = ["127.0.0.1:443"]
certificates = [{{ hosts = ["bench.home.arpa"], cert = "@FOLDER@/cert.pem", key = "@FOLDER@/key.pem" }}]

[[route]]
host   = "bench.home.arpa"
access = "vpn"
to     = ["http://127.0.0.1:8001"]

[vpn]
listen      = ["192.168.77.1:51820"]
endpoint    = "192.168.77.1:51820"
addresses   = ["10.77.0.1/24"]
mode        = "userspace"
private_key = "@FOLDER@/gate.key"

[[vpn.peer]]
name       = "bench"
public_key = "{client_key[1]}"
addresses  = ["10.77.0.2/32"]
""", namespace=GATE)
tunnel(f"wgh{tag}", CLIENT, LOAD_CORE, client_key[0], "10.77.0.2", gate_key[1], endpoint="192.168.77.1:51820",
       route="10.77.0.1/32")


def download(address, path="/big"):
    out = run(["curl", "-sk", "--max-time", "100", "--resolve", f"bench.home.arpa:443:{address}", "-o", "/dev/null",
               "-w", "%{http_code} %{size_download}", f"https://bench.home.arpa{path}"], namespace=CLIENT, check=False)
    return out


def measured(address, *servers):
    def once():
        before = cpu(*servers)
        out = download(address)
        if out != f"200 {SIZE}":
            sys.exit(f"the download from {address} failed: {out}")
        # What is still on its way through the tunnel belongs to this run.
        time.sleep(0.3)
        return SIZE / 1e9, cpu(*servers) - before

    return once


for address in "10.77.0.1", "10.78.0.1":
    until(f"the route at {address}", lambda: download(address, "/").startswith(("403", "404")))
alternate("VPN, one stream of 200 MB over HTTPS out of the house", "CPU seconds per GB", 1, {
    "hearthgate": measured("10.77.0.1", hearthgate),
    "wireguard-go and nginx": measured("10.78.0.1", wireguard, proxy),
})
for name, server in ("hearthgate", hearthgate), ("wireguard-go", wireguard):
    print(f"  {name:28} {resident(server):9.1f} MiB resident")

# What follows has the gate alone: how much a datagram of a flood costs, and what is left of a stream beside it.
ATTACK = pathlib.Path(__file__).with_name("attack.py")
RATE = int(os.environ.get("FLOOD_RATE", "20000"))
for key in "all", "eth0":
    run(["sysctl", "-qw", f"net.ipv4.conf.{key}.rp_filter=0"], namespace=GATE)
ip("route add default via 192.168.77.2", GATE)


def flood(kind, seconds):
    """Begins a flood and returns when the first of it is on its way."""
    child = subprocess.Popen(["ip", "netns", "exec", CLIENT, "taskset", "-c", LOAD_CORE, sys.executable, ATTACK, kind,
                              str(RATE), str(seconds), gate_key[1]], stdout=subprocess.PIPE, text=True)
    while kind == "replay" and not select.select([child.stdout], [], [], 0)[0]:
        download("10.77.0.1", "/")
    child.stdout.readline()
    return child


def received():
    """Datagrams that programs in the gate's namespace have read."""
    lines = [line.split() for line in run(["cat", "/proc/net/snmp"], namespace=GATE).splitlines() if line.startswith("Udp:")]
    return int(dict(zip(*lines))["InDatagrams"])


def stream():
    before = cpu(hearthgate)
    if download("10.77.0.1") != f"200 {SIZE}":
        sys.exit("the download failed")
    return SIZE * 8 / 1e9 / (cpu(hearthgate) - before)


print(f"\nVPN under attack, {RATE} datagrams a second")
for kind, what in ("bad", "bad mac1"), ("valid", "valid mac1, spoofed"), ("replay", "data again"):
    child = flood(kind, 6)
    datagrams, before, own = received(), cpu(hearthgate), user_cpu(hearthgate)
    child.wait()
    time.sleep(0.3)
    datagrams, used, own = received() - datagrams, cpu(hearthgate) - before, user_cpu(hearthgate) - own
    print(f"  {what:28} {used / datagrams * 1e6:9.2f} us of CPU for one of {datagrams}, of it {own / datagrams * 1e6:.2f} "
          "outside the kernel")
    calm, beside = [], []
    for _ in range(ROUNDS):
        calm.append(stream())
        child = flood(kind, 100)
        beside.append(stream())
        child.kill()
        child.wait()
    calm, beside = statistics.median(calm), statistics.median(beside)
    print(f"  {'':28} {calm:9.2f} Gbit per CPU second without, {beside:.2f} beside it: {beside / calm:.2f}")
