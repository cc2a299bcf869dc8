#!/usr/bin/env python3
"""CPU per request and per gigabyte: hearthgate beside nginx and haproxy, TLS 1.3 with the same certificate, one
core, in front of the same nginx upstream (which runs on the load's core)."""

import re
import sys

from measure import LOAD_CORE, NODE, SECONDS, alternate, cpu, edge, folder, heading, needs, resident, run, start, until, write

PORTS = {"hearthgate": 18443, "nginx": 18444, "haproxy": 18445}
UPSTREAM = 18001

needs("nginx", "haproxy", "wrk", "curl", "openssl", "taskset")
heading(["nginx", "-v"], ["haproxy", "-v"], ["wrk", "-v"])

at = folder()
# A name that resolves everywhere, so that the load generator sends it as SNI.
run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
     "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", at / "key.pem",
     "-out", at / "cert.pem"])
write("both.pem", (at / "cert.pem").read_text() + (at / "key.pem").read_text())
(at / "key.pem").chmod(0o644)
(at / "big").write_bytes(b"." * 10_000_000)
scratch = "".join(f"{kind}_temp_path {at}/@NAME@-{kind}; " for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])


def nginx(name, http, core):
    """Starts an nginx with one worker, which is the master too."""
    config = write(f"{name}.conf", f"daemon off; master_process off; pid {at}/{name}.pid; error_log stderr;\n"
                   f"events {{ worker_connections 4096; }}\nhttp {{ access_log off; sendfile on; "
                   f"keepalive_requests 1000000; {scratch.replace('@NAME@', name)}\n{http}\n}}\n")
    return start(name, ["nginx", "-c", config, "-e", "stderr"], core)


nginx("upstream", f"server {{ listen 127.0.0.1:{UPSTREAM}; location / {{ default_type text/plain; return 200 'ok\\n'; }} "
      f"location = /big {{ root {at}; }} }}", LOAD_CORE)
haproxy = write("haproxy.cfg", f"""
global
 nbthread 1
 maxconn 4096
defaults
 mode http
 timeout connect 5s
 timeout client 60s
 timeout server 60s
frontend in
 bind 127.0.0.1:{PORTS["haproxy"]} ssl crt {at}/both.pem alpn http/1.1
 default_backend out
backend out
 http-reuse always
 server one 127.0.0.1:{UPSTREAM}
""")
servers = {
    "hearthgate": edge("hearthgate", NODE + f"""
[ingress]
http  = ["127.0.0.1:18080"]
https = ["127.0.0.1:{PORTS["hearthgate"]}"]
certificates = [{{ hosts = ["localhost"], cert = "@FOLDER@/cert.pem", key = "@FOLDER@/key.pem" }}]

[[route]]
host   = "localhost"
access = "public"
to     = ["http://127.0.0.1:{UPSTREAM}"]
"""),
    "nginx": nginx("nginx", f"upstream up {{ server 127.0.0.1:{UPSTREAM}; keepalive 128; keepalive_requests 1000000; }} "
                   f"server {{ listen 127.0.0.1:{PORTS['nginx']} ssl; ssl_certificate {at}/cert.pem; "
                   f"ssl_certificate_key {at}/key.pem; ssl_protocols TLSv1.2 TLSv1.3; location / {{ proxy_pass http://up; "
                   f"proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $host; "
                   f"proxy_set_header X-Forwarded-For $remote_addr; }} }}", "0"),
    "haproxy": start("haproxy", ["haproxy", "-db", "-f", haproxy]),
}


def measured(name, path, connections, unit):
    url = f"https://localhost:{PORTS[name]}{path}"

    def once():
        before = cpu(servers[name])
        out = run(["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--timeout", "10s", url])
        if "Non-2xx" in out or "Socket errors" in out:
            sys.exit(f"{name}: {out}")
        requests, size, scale = re.search(r"(\d+) requests in [\d.]+\w+, ([\d.]+)(\w+) read", out).groups()
        read = float(size) * {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}[scale] / 1e9
        return (int(requests) if unit == "request" else read), cpu(servers[name]) - before

    return once


for name, port in PORTS.items():
    until(name, lambda: run(["curl", "-sk", f"https://localhost:{port}/"], check=False) == "ok\n")
alternate("ingress, small requests, HTTP/1.1 over TLS, 50 connections", "µs of CPU per request", 1e6,
          {name: measured(name, "/", 50, "request") for name in PORTS})
alternate("ingress, 10 MB bodies, HTTP/1.1 over TLS, 4 connections", "CPU seconds per GB", 1,
          {name: measured(name, "/big", 4, "byte") for name in PORTS})
for name, server in servers.items():
    print(f"  {name:28} {resident(server):9.1f} MiB resident")
