#!/usr/bin/env python3
"""Memory with 2, 20 and 200 peers that have come in, and the CPU time of the gate while they say nothing. The handshakes
are made here, with python3-cryptography. On loopback."""

import base64
import hashlib
import hmac
import os
import socket
import struct
import sys
import time

try:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
except ImportError:
    sys.exit("SKIPPED: it needs python3-cryptography")
from measure import NODE, cpu, edge, folder, heading, needs, resident, stop, until

SILENCE = int(os.environ.get("SILENCE_SECONDS", "30"))
GATE = ("127.0.0.1", 51820)


def digest(*parts):
    return hashlib.blake2s(b"".join(parts)).digest()


def derive(chain, data, count):
    """The whitepaper's KDF, section 5.4."""
    secret, last, out = hmac.new(chain, data, "blake2s").digest(), b"", []
    for number in range(1, count + 1):
        last = hmac.new(secret, last + bytes([number]), "blake2s").digest()
        out.append(last)
    return out


def public(private):
    return private.public_key().public_bytes_raw()


class Peer:
    """A client with one session."""

    def __init__(self):
        self.private = X25519PrivateKey.generate()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(5)

    def come_in(self, gate):
        """Makes a handshake and confirms it with a keepalive."""
        far, ephemeral = X25519PublicKey.from_public_bytes(gate), X25519PrivateKey.generate()
        chain = digest(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
        seen = digest(digest(chain, b"WireGuard v1 zx2c4 Jason@zx2c4.com"), gate)
        own = public(ephemeral)
        [chain], seen = derive(chain, own, 1), digest(seen, own)
        chain, key = derive(chain, ephemeral.exchange(far), 2)
        static = ChaCha20Poly1305(key).encrypt(bytes(12), public(self.private), seen)
        seen = digest(seen, static)
        chain, key = derive(chain, self.private.exchange(far), 2)
        now = time.time_ns()
        stamp = struct.pack("!QI", 2**62 + 10 + now // 10**9, now % 10**9)
        stamp = ChaCha20Poly1305(key).encrypt(bytes(12), stamp, seen)
        seen = digest(seen, stamp)
        message = b"\1\0\0\0" + os.urandom(4) + own + static + stamp
        message += hashlib.blake2s(message, key=digest(b"mac1----", gate), digest_size=16).digest() + bytes(16)
        self.socket.sendto(message, GATE)

        answer = self.socket.recv(2048)
        if answer[0] != 2:
            sys.exit(f"a message of type {answer[0]} and no response")
        theirs = answer[12:44]
        [chain], seen = derive(chain, theirs, 1), digest(seen, theirs)
        for private in ephemeral, self.private:
            [chain] = derive(chain, private.exchange(X25519PublicKey.from_public_bytes(theirs)), 1)
        chain, mixed, key = derive(chain, bytes(32), 3)
        ChaCha20Poly1305(key).decrypt(bytes(12), answer[44:60], digest(seen, mixed))
        sending, _ = derive(chain, b"", 2)
        keepalive = ChaCha20Poly1305(sending).encrypt(bytes(12), b"", None)
        self.socket.sendto(b"\4\0\0\0" + answer[4:8] + bytes(8) + keepalive, GATE)


heading()
secret = X25519PrivateKey.generate()
key = folder() / "gate.key"
key.write_text(base64.b64encode(secret.private_bytes_raw()).decode() + "\n")
key.chmod(0o600)
if os.geteuid() == 0:
    os.chown(key, 65534, 65534)
needs()
print(f"\nVPN, peers that came in and say nothing for {SILENCE} s")
for count in 2, 20, 200:
    peers = [Peer() for _ in range(count)]
    config = NODE + f"""
[vpn]
listen      = ["127.0.0.1:51820"]
endpoint    = "127.0.0.1:51820"
addresses   = ["10.77.0.1/16"]
mode        = "userspace"
private_key = "{key}"
"""
    for number, peer in enumerate(peers, 2):
        config += (f'\n[[vpn.peer]]\nname = "p{number}"\npublic_key = "{base64.b64encode(public(peer.private)).decode()}"\n'
                   f'addresses = ["10.77.0.{number}/32"]\n')
    gate = edge(f"gate{count}", config)
    until("the gate", lambda: any(line.split()[1].endswith(":CA6C") for line in open("/proc/net/udp")))
    before = resident(gate)
    for peer in peers:
        peer.come_in(public(secret))
        time.sleep(0.04)
    time.sleep(1)
    used = cpu(gate)
    time.sleep(SILENCE)
    used = cpu(gate) - used
    print(f"  {count:4} peers   {before:6.1f} MiB before they come, {resident(gate):6.1f} after; "
          f"{used / SILENCE * 100:.3f} % of a core", flush=True)
    stop(gate)
