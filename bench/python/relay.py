"""Delays what crosses between two network namespaces: a packet relay between two TUN interfaces.

    relay.py NEAR NEAR_ADDRESS FAR FAR_ADDRESS

NEAR and FAR are names of namespaces of `ip netns`. Standard input takes one line for each change, "DELAY JITTER
LOSS": milliseconds each way, milliseconds more or less (uniform), and the share of packets that are dropped. Packets
stay in order. The kernel here has no netem.
"""

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
INTERFACE = "relay0"
MOST_WAITING = 4000


def enter(namespace):
    """Makes this process live in a namespace."""
    with open(f"/var/run/netns/{namespace}", encoding="ascii") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")


def tun(namespace, own, peer):
    """A TUN interface in a namespace, up, with an address and its peer's."""
    enter(namespace)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", INTERFACE.encode(), IFF_TUN | IFF_NO_PI))
    for line in (
        f"ip addr add {own} peer {peer} dev {INTERFACE}",
        f"ip link set {INTERFACE} up txqueuelen 1000",
    ):
        subprocess.run(line.split(), check=True)
    return device


def main(near, near_address, far, far_address):
    ends = [tun(near, near_address, far_address), tun(far, far_address, near_address)]
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    delay = jitter = loss = 0.0
    last = dict.fromkeys(ends, 0.0)
    waiting = []
    count = 0
    print("listening relay", flush=True)
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, end, packet = heapq.heappop(waiting)
            try:
                os.write(end, packet)
            except (BlockingIOError, OSError):
                pass
        timeout = max(waiting[0][0] - now, 0) if waiting else None
        ready, _, _ = select.select([*ends, sys.stdin], [], [], timeout)
        for end in ready:
            if end is sys.stdin:
                line = sys.stdin.readline()
                if not line:
                    return
                delay, jitter, loss = (float(word) for word in line.split())
                print("changed", flush=True)
                continue
            for _ in range(64):
                try:
                    packet = os.read(end, 65536)
                except BlockingIOError:
                    break
                if random.random() < loss or len(waiting) >= MOST_WAITING:
                    continue
                due = time.monotonic() + (delay + random.uniform(-jitter, jitter)) / 1000
                last[end] = max(last[end], due)
                heapq.heappush(waiting, (last[end], count, other[end], packet))
                count += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
