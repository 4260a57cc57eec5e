"""tables.bin: the integer entropy model, its file form and the ideal code length under it.

The coder itself is in the Rust crate sidecod-wire. `code_length` here is the reference that its
output is compared with.
"""

import argparse
import struct
from dataclasses import dataclass

import numpy as np

MAGIC = b"SCT1"
# Frequencies of one bin sum to this; 15 bits.
TOTAL = 32768
# Signed left, up, upper-left, upper-right, then their absolute values.
NEIGHBOURS = 8


class TablesError(ValueError):
    """Bytes that are no tables, or symbols that do not fit them."""


@dataclass
class Channel:
    """The context function of one channel and its frequency tables."""

    weight: np.ndarray  # int8 [8]
    previous: np.ndarray  # int8 [P]
    threshold: np.ndarray  # int32 [B - 1], ascending
    frequency: np.ndarray  # uint16 [B, A + 1]; entry A is the escape


@dataclass
class Tables:
    """Symbols minimum .. minimum + alphabet - 1 have entries of their own; any other is an escape."""

    minimum: int
    alphabet: int
    channels: list

    def to_bytes(self):
        """The file form, little-endian."""
        first = self.channels[0]
        out = [MAGIC, struct.pack("<HhH", len(self.channels), self.minimum, self.alphabet)]
        out.append(struct.pack("<BB", len(first.frequency), len(first.previous)))
        for channel in self.channels:
            out.append(channel.weight.astype("<i1").tobytes())
            out.append(channel.previous.astype("<i1").tobytes())
            out.append(channel.threshold.astype("<i4").tobytes())
            out.append(channel.frequency.astype("<u2").tobytes())
        return b"".join(out)

    @classmethod
    def from_bytes(cls, data):
        """Reads the file form and checks every rule of it."""
        head = len(MAGIC) + 8
        if len(data) < head or data[: len(MAGIC)] != MAGIC:
            raise TablesError("not a tables file")
        count, minimum, alphabet, bins, previous = struct.unpack_from("<HhHBB", data, len(MAGIC))
        if not (count and alphabet and 1 <= bins <= 16 and previous <= 6):
            raise TablesError("a size in the header is out of range")
        each = NEIGHBOURS + previous + 4 * (bins - 1) + 2 * bins * (alphabet + 1)
        if len(data) != head + count * each:
            raise TablesError(f"expected {head + count * each} bytes, got {len(data)}")
        channels, at = [], head

        def take(kind, number):
            nonlocal at
            out = np.frombuffer(data, kind, number, at)
            at += out.nbytes
            return out.copy()

        for index in range(count):
            channel = Channel(
                take("<i1", NEIGHBOURS),
                take("<i1", previous),
                take("<i4", bins - 1),
                take("<u2", bins * (alphabet + 1)).reshape(bins, alphabet + 1),
            )
            if np.any(np.diff(channel.threshold.astype(np.int64)) < 0):
                raise TablesError(f"channel {index}: thresholds are not ascending")
            if np.any(channel.frequency == 0) or np.any(channel.frequency.sum(1, dtype=np.int64) != TOTAL):
                raise TablesError(f"channel {index}: frequencies do not sum to {TOTAL}")
            channels.append(channel)
        return cls(minimum, alphabet, channels)


def features(symbols, channel, previous):
    """int32 [8 + previous, h, w]: what the context of `channel` sees in `symbols` [C, h, w]."""
    plane = symbols[channel].astype(np.int32)
    height, width = plane.shape
    padded = np.pad(plane, ((1, 0), (1, 1)))
    left, up = padded[1:, :width], padded[:height, 1 : width + 1]
    up_left, up_right = padded[:height, :width], padded[:height, 2:]
    near = [left, up, up_left, up_right]
    near += [np.abs(plane) for plane in near]
    for back in range(1, previous + 1):
        here = symbols[channel - back] if channel >= back else np.zeros_like(plane)
        near.append(np.abs(here.astype(np.int32)))
    return np.stack(near)


def entries(symbols, minimum, alphabet):
    """Index of each symbol's entry; `alphabet` is the escape."""
    index = symbols.astype(np.int64) - minimum
    return np.where((index >= 0) & (index < alphabet), index, alphabet)


def escape_bits(values):
    """Length of the Exp-Golomb code of order 0 of each escaped value, zigzag-mapped."""
    values = np.asarray(values, dtype=np.int64)
    mapped = np.where(values > 0, 2 * values - 1, -2 * values)
    return 2 * np.floor(np.log2(mapped + 1)) + 1


def code_length(symbols, tables):
    """Ideal length in bits of int [C, h, w] `symbols`, per channel: float64 [C]."""
    if len(symbols) != len(tables.channels):
        raise TablesError(f"{len(symbols)} channels of symbols, {len(tables.channels)} of tables")
    bits = np.zeros(len(symbols))
    for index, channel in enumerate(tables.channels):
        seen = features(symbols, index, len(channel.previous))
        weight = np.concatenate([channel.weight, channel.previous]).astype(np.int32)
        score = np.tensordot(weight, seen, 1)
        chosen = np.searchsorted(channel.threshold, score, side="right")
        entry = entries(symbols[index], tables.minimum, tables.alphabet)
        bits[index] = np.log2(TOTAL / channel.frequency[chosen, entry].astype(np.float64)).sum()
        bits[index] += escape_bits(symbols[index][entry == tables.alphabet]).sum()
    return bits


def main():
    """Prints the ideal code length of a file of symbols, int16 little-endian, [C, h, w]."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("tables")
    parser.add_argument("symbols")
    parser.add_argument("height", type=int)
    parser.add_argument("width", type=int)
    args = parser.parse_args()
    with open(args.tables, "rb") as file:
        tables = Tables.from_bytes(file.read())
    symbols = np.fromfile(args.symbols, "<i2").reshape(-1, args.height, args.width)
    bits = code_length(symbols, tables)
    print(f"{bits.sum():.1f} bits, {bits.sum() / 8:.1f} bytes, {bits.sum() / symbols.size:.4f} bits per symbol")


if __name__ == "__main__":
    main()
