#!/usr/bin/env python3
"""A link between two network namespaces: a TUN device in each, and between them a delay each way and a loss by a
seeded dice. For kernels without netem.

    relay.py NAMESPACE DEVICE NAMESPACE DEVICE MILLISECONDS LOSS_PERCENT SEED

Addresses and routes are the caller's business; it runs until it is told to stop, and needs root."""

import ctypes
import fcntl
import heapq
import os
import random
import select
import signal
import struct
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
# What waits on the way; more is lost, as in any router.
MOST_WAITING = 10000

libc = ctypes.CDLL(None, use_errno=True)


def tun(namespace, device):
    """Makes a TUN device in a namespace and returns its descriptor."""
    with open(f"/run/netns/{namespace}") as place:
        if libc.setns(place.fileno(), CLONE_NEWNET) != 0:
            sys.exit(f"{namespace}: {os.strerror(ctypes.get_errno())}")
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


def relay(ends, delay, loss, seed):
    """Carries packets from each end to the other."""
    # A dice for each direction, so that one end's packets do not change the other's luck.
    dice = {ends[0]: random.Random(seed), ends[1]: random.Random(seed + 1)}
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    waiting, serial = [], 0
    while True:
        patience = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for end in select.select(ends, [], [], patience)[0]:
            try:
                while True:
                    packet = os.read(end, 65536)
                    if dice[end].random() >= loss and len(waiting) < MOST_WAITING:
                        serial += 1
                        heapq.heappush(waiting, (time.monotonic() + delay, serial, other[end], packet))
            except BlockingIOError:
                pass
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, end, packet = heapq.heappop(waiting)
            try:
                os.write(end, packet)
            except OSError:
                # The device is down or full.
                pass


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    one, one_device, two, two_device, milliseconds, percent, seed = sys.argv[1:]
    pair = [tun(one, one_device), tun(two, two_device)]
    print("up", flush=True)
    relay(pair, float(milliseconds) / 1000, float(percent) / 100, int(seed))
