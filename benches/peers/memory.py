#!/usr/bin/env python3
"""Resident memory of the quick start: after it came up, and after some use. Its ports are fixed; as root it gets a
namespace and an ordinary user of its own."""

import atexit
import os
import shutil
import subprocess
import sys

from measure import HEARTHGATE, folder, heading, needs, resident, run, start, until

needs("curl", "dig", "taskset")
heading()

LIMIT = 32
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
sys.exit(0 if used < LIMIT else 1)
