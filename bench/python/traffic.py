"""Sends UDP to a sink that nobody reads, at a rate: traffic.py ADDRESS PORT MEGABITS."""

import socket
import sys
import time

PACKET = bytes(1400)


def main(address, port, megabits):
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    pause = len(PACKET) * 8 / (float(megabits) * 1e6)
    due = time.monotonic()
    while True:
        try:
            sender.sendto(PACKET, (address, int(port)))
        except OSError:
            pass  # the queue of the link is full
        due = max(due + pause, time.monotonic() - 0.05)
        rest = due - time.monotonic()
        if rest > 0.0005:
            time.sleep(rest)


if __name__ == "__main__":
    main(*sys.argv[1:])
