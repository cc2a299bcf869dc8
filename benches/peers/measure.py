"""What the comparisons share: programs pinned to a core, their CPU time, and medians with spread."""

import atexit
import datetime
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEARTHGATE = pathlib.Path(os.environ.get("HEARTHGATE", ROOT / "target/release/hearthgate"))
ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = int(os.environ.get("SECONDS_PER_RUN", "4"))
SERVER_CORE, LOAD_CORE = "0", "1"

_tick = os.sysconf("SC_CLK_TCK")
_children = []
_folder = tempfile.mkdtemp(prefix="hearthgate-bench-")
os.chmod(_folder, 0o755)


def folder():
    """A folder that vanishes with the script."""
    return pathlib.Path(_folder)


@atexit.register
def _end():
    for child in reversed(_children):
        stop(child)
    shutil.rmtree(_folder, ignore_errors=True)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def needs(*programs):
    """Leaves with a sentence when a program is missing."""
    missing = [p for p in programs if not shutil.which(p, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]
    if not HEARTHGATE.exists():
        missing.append(f"{HEARTHGATE} (cargo build --release)")
    if missing:
        sys.exit("SKIPPED: it needs " + ", ".join(missing))
    os.environ["PATH"] += ":/usr/sbin:/sbin"


def start(name, command, core=SERVER_CORE, namespace=None, env=None):
    """Starts a program on one core; its output is in NAME.log."""
    command = ["taskset", "-c", core, *map(str, command)]
    if namespace:
        command = ["ip", "netns", "exec", namespace, *command]
    log = open(folder() / f"{name}.log", "w")
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
    child.name = name
    _children.append(child)
    return child


def stop(child):
    """Ends a program and waits for it."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def run(command, core=LOAD_CORE, namespace=None, timeout=120, check=True):
    """Runs a program on the load's core and returns what it printed."""
    command = ["taskset", "-c", core, *map(str, command)]
    if namespace:
        command = ["ip", "netns", "exec", namespace, *command]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def until(what, ask, seconds=20):
    """Waits until `ask` says yes."""
    end = time.monotonic() + seconds
    while not ask():
        for child in _children:
            if child.poll() not in (None, 0):
                sys.exit(f"{child.name} ended: " + (folder() / f"{child.name}.log").read_text())
        if time.monotonic() > end:
            sys.exit(f"{what} does not come up")
        time.sleep(0.1)


def _stat(pid):
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return text.rsplit(")", 1)[1].split()


def family(child):
    """The process ids of a program and its workers."""
    pids, found = [child.pid], [child.pid]
    while pids:
        parent = pids.pop()
        tasks = pathlib.Path(f"/proc/{parent}/task").glob("*/children")
        below = [int(pid) for task in tasks for pid in task.read_text().split()]
        pids += below
        found += below
    return found


def cpu(*children):
    """Seconds of user and system time that these programs and their workers have used."""
    pids = [pid for child in children for pid in family(child)]
    return sum(int(field) for pid in pids for field in _stat(pid)[11:13]) / _tick


def user_cpu(*children):
    """Seconds of user time alone."""
    return sum(int(_stat(pid)[11]) for child in children for pid in family(child)) / _tick


def resident(child):
    """MiB of resident memory of a program and its workers."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int(_stat(pid)[21]) for pid in family(child)) * page / 2**20


def alternate(title, unit, scale, contenders, rounds=ROUNDS):
    """Lets each contender run in turn; a run returns (units of work, CPU seconds). The first is compared
    with every other."""
    print(f"\n{title} ({unit}, median of {rounds} alternating runs, smallest to largest)")
    samples = {name: [] for name in contenders}
    rates = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, once in contenders.items():
            began = time.monotonic()
            units, seconds = once()
            rates[name].append(units / (time.monotonic() - began))
            samples[name].append(seconds / max(units, 1e-9) * scale)
    first, *others = samples
    for name, values in samples.items():
        rate = statistics.median(rates[name])
        print(f"  {name:28} {statistics.median(values):9.2f}   {min(values):9.2f} to {max(values):9.2f}"
              f"   at {rate:,.2f} units/s")
    for name in others:
        ratio = statistics.median(samples[first]) / statistics.median(samples[name])
        print(f"  {first} / {name}: {ratio:.2f}")
    return {name: statistics.median(values) for name, values in samples.items()}


def heading(*versions):
    """Date, machine and versions, one line each."""
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    print(f"date     {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC")
    print(f"machine  {os.uname().machine}, {os.cpu_count()} cores, {model}, Linux {os.uname().release}")
    print(f"load     {' '.join(f'{x:.1f}' for x in os.getloadavg())} before the first run")
    for command in [[str(HEARTHGATE), "--version"], *versions]:
        done = subprocess.run(command, capture_output=True, text=True)
        text = (done.stdout + done.stderr).strip().splitlines()
        print(f"version  {next((line for line in text if any(c.isdigit() for c in line)), command[0])}")
    sys.stdout.flush()


def write(name, text):
    """Writes a file into the script's folder and returns its path."""
    path = folder() / name
    path.write_text(text)
    return path


def ip(line, namespace=None):
    """Changes the network of a namespace."""
    subprocess.run(["ip", *(["-n", namespace] if namespace else []), *line.split()], check=True)


def namespaces(*names):
    """Makes namespaces with a loopback; they vanish with the script."""
    def clean():
        for name in names:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)

    atexit.register(clean)
    for name in names:
        ip(f"netns add {name}")
        ip("link set lo up", name)


def shell(command):
    """Runs a line of shell in the script's folder and returns what it printed."""
    done = subprocess.run(command, shell=True, cwd=folder(), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command}: {done.stderr}")
    return done.stdout.strip()


def nsd(name, address, zones, namespace=None):
    """Starts nsd on the load's core; `zones` are names and their files in the script's folder."""
    text = f"""
server:
 ip-address: {address}
 username: ""
 zonesdir: "{folder()}"
 pidfile: ""
 database: ""
 zonelistfile: "{folder()}/{name}.list"
 xfrdfile: "{folder()}/{name}.xfrd"
 server-count: 1
 rrl-ratelimit: 0
remote-control:
 control-enable: no
"""
    text += "".join(f'zone:\n name: {origin}\n zonefile: {file}\n' for origin, file in zones)
    start(name, ["nsd", "-d", "-c", write(f"{name}.conf", text)], LOAD_CORE, namespace)


def edge(name, config, core=SERVER_CORE, namespace=None):
    """Starts hearthgate with a configuration, as an ordinary user where root has one to give."""
    state = folder() / f"{name}-state"
    state.mkdir(mode=0o700)
    file = write(f"{name}.toml", config.replace("@STATE@", str(state)).replace("@FOLDER@", _folder))
    command = [HEARTHGATE, "run", "--config", file]
    if os.geteuid() == 0:
        shutil.chown(state, "nobody")
    return start(name, command, core, namespace)


# As root the configuration must name the user to become.
NODE = '[node]\nstate = "@STATE@"\n' + ('user = "nobody"\n' if os.geteuid() == 0 else "")
