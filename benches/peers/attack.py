"""What a flood sends to the gate; vpn.py runs it in the client's namespace: KIND RATE SECONDS GATE_KEY."""

import base64
import hashlib
import os
import socket
import struct
import sys
import time

TO = ("192.168.77.1", 51820)
kind, rate, seconds, gate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), base64.b64decode(sys.argv[4])


def initiation(valid):
    """It proves knowledge of the gate's public key or does not; nothing behind that is true."""
    body = b"\1\0\0\0" + os.urandom(112)
    label = hashlib.blake2s(b"mac1----" + gate).digest()
    mac1 = hashlib.blake2s(body, key=label, digest_size=16).digest() if valid else os.urandom(16)
    return body + mac1 + bytes(16)


def spoofed(payload):
    """From anywhere in 10.128.0.0/9."""
    source = bytes([10, 128 | os.urandom(1)[0] & 127]) + os.urandom(2)
    udp = struct.pack("!4H", int.from_bytes(os.urandom(2), "big") | 1024, TO[1], 8 + len(payload), 0) + payload
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, source, socket.inet_aton(TO[0])) + udp


def overheard():
    """Data that the client is sending to the gate just now."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    wire.bind(("eth0", 3))
    wire.settimeout(20)
    found = []
    while len(found) < 64:
        packet, address = wire.recvfrom(65_536)
        if address[2] == socket.PACKET_OUTGOING and packet[9] == 17 and packet[22:24] == struct.pack("!H", TO[1]) \
                and packet[28] == 4:
            found.append(packet[28:])
    return found


if kind == "replay":
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    packets = overheard()
else:
    out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    packets = [spoofed(initiation(kind == "valid")) for _ in range(4096)]
print("ready", flush=True)
sent, begin = 0, time.monotonic()
while (passed := time.monotonic() - begin) < seconds:
    while sent < passed * rate:
        out.sendto(packets[sent % len(packets)], TO)
        sent += 1
    time.sleep(0.002)
print(sent, flush=True)
