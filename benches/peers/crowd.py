#!/usr/bin/env python3
"""Many clients in one program: questions from as many addresses as one likes, a batch with each system call. Started by
others, in the namespace that the addresses are in; what to do is its argument, what came of it is printed."""

import ctypes
import errno
import json
import random
import socket
import struct
import sys
import time

BATCH = 64
IP_PKTINFO = 8

_libc = ctypes.CDLL(None, use_errno=True)


class _Slice(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Message(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint), ("slices", ctypes.POINTER(_Slice)),
                ("slice_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
                ("flags", ctypes.c_int), ("_", ctypes.c_int), ("length", ctypes.c_uint), ("__", ctypes.c_int)]


def question(name, number):
    """A question for an address."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", number & 0xffff, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\x01\0\x01"


class _Batch:
    """Memory that the kernel reads or writes: it stays where it is as long as this object lives."""

    def __init__(self, buffers, sources=None, server=None):
        count = len(buffers)
        if server:
            # Not connected: that would leave the socket with one address.
            where = struct.pack("=H", socket.AF_INET) + struct.pack(">H", server[1]) + socket.inet_aton(server[0]) + bytes(8)
            self.where = ctypes.create_string_buffer(where, len(where))
        self.buffers = buffers
        self.slices = (_Slice * count)()
        self.messages = (_Message * count)()
        self.controls = []
        for at, buffer in enumerate(buffers):
            self.slices[at] = _Slice(ctypes.addressof(buffer), len(buffer))
            message = self.messages[at]
            message.slices, message.slice_count = ctypes.pointer(self.slices[at]), 1
            if server:
                message.name, message.name_length = ctypes.addressof(self.where), len(self.where)
                info = struct.pack("=Qii", 28, socket.IPPROTO_IP, IP_PKTINFO)
                info += struct.pack("=i4s4s", 0, socket.inet_aton(sources[at]), bytes(4)) + bytes(4)
                control = ctypes.create_string_buffer(info, 32)
                self.controls.append(control)
                message.control, message.control_length = ctypes.addressof(control), 32


class Crowd:
    """Asks `server` from each of `sources` in turn. To be made inside the namespace that it asks from."""

    def __init__(self, server, sources, names):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in socket.SO_RCVBUF, socket.SO_SNDBUF:
            self.socket.setsockopt(socket.SOL_SOCKET, option, 8 << 20)
        self.socket.bind(("0.0.0.0", 0))
        self.batches = []
        for start in range(0, len(names), BATCH):
            part = range(start, min(start + BATCH, len(names)))
            buffers = [ctypes.create_string_buffer(text, len(text)) for text in (question(names[n], n) for n in part)]
            self.batches.append(_Batch(buffers, [sources[n % len(sources)] for n in part], server))
        self.into = _Batch([ctypes.create_string_buffer(512) for _ in range(BATCH)])
        self.next = 0

    def send(self):
        """Sends a batch; returns how many questions left."""
        batch = self.batches[self.next]
        self.next = (self.next + 1) % len(self.batches)
        sent = _libc.sendmmsg(self.socket.fileno(), batch.messages, len(batch.buffers), socket.MSG_DONTWAIT)
        if sent < 0 and ctypes.get_errno() not in (errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED):
            raise OSError(ctypes.get_errno(), "sendmmsg")
        return max(sent, 0)

    def receive(self):
        """Takes what answers there are, a batch at most; returns how many were good, and how many there were."""
        count = _libc.recvmmsg(self.socket.fileno(), self.into.messages, BATCH, socket.MSG_DONTWAIT, None)
        good = 0
        for at in range(max(count, 0)):
            # NOERROR, not truncated, and a record.
            head = self.into.buffers[at]
            good += head[3][0] & 15 == 0 and head[2][0] & 2 == 0 and head[7] != b"\0"
        return good, max(count, 0)

    def run(self, seconds, rate=None):
        """Asks for some time: as fast as answers come, or `rate` questions a second whatever comes. Returns how many
        were asked and how many good answers came."""
        asked = good = open_ = 0
        began = last = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            wanted = open_ < 2 * BATCH if rate is None else asked < (now - began) * rate
            if wanted:
                sent = self.send()
                asked, open_ = asked + sent, open_ + sent
            answered, came = self.receive()
            good, open_ = good + answered, open_ - came
            if wanted or came:
                last = now
                continue
            time.sleep(0.0002)
            if now - last > 0.05:
                # What is lost does not come any more.
                open_ = 0
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            good += self.receive()[0]
        return asked, good


def sources(first, count):
    """Addresses, one after another."""
    number = int.from_bytes(socket.inet_aton(first), "big")
    return [socket.inet_ntoa((number + n).to_bytes(4, "big")) for n in range(count)]


def victims(server, addresses, names, seconds):
    """A few clients who ask in turn, one question at a time, ten a second each: how long the answers take, in ms."""
    clients = []
    for address in addresses:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.bind((address, 0))
        client.connect(server)
        client.settimeout(1)
        clients.append(client)
    times, lost = [], 0
    began = time.monotonic()
    number = 0
    while time.monotonic() < began + seconds:
        client = clients[number % len(clients)]
        client.send(question(names[number % len(names)], number))
        sent = time.monotonic()
        try:
            client.recv(512)
            times.append((time.monotonic() - sent) * 1e3)
        except TimeoutError:
            lost += 1
        number += 1
        time.sleep(max(0, began + number / (10 * len(clients)) - time.monotonic()))
    times.sort()
    at = lambda part: times[min(len(times) - 1, int(len(times) * part))] if times else None
    return {"asked": number, "lost": lost, "p50": at(0.5), "p99": at(0.99)}


def main():
    what = json.loads(sys.argv[1])
    server, addresses = tuple(what["server"]), sources(what["first"], what["count"])
    names = [f"host{n}.bench.tld" for n in range(what["names"])]
    if what["do"] == "victims":
        done = victims(server, addresses, names, what["seconds"])
    else:
        if what["do"] == "flood":
            names = [f"{random.getrandbits(64):x}.bench.tld" for _ in range(64_000)]
        else:
            names = [names[n % len(names)] for n in range(max(len(addresses), len(names)) // 64 * 64)]
        asked, good = Crowd(server, addresses, names).run(what["seconds"], what.get("rate"))
        done = {"asked": asked, "good": good}
    print(json.dumps(done))


if __name__ == "__main__":
    main()
