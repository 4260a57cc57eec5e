"""tables.bin: the integer entropy model, its narrow file form (`wide` has the other), the ideal code length under it.

The coder itself is in the Rust crate sidecod-wire. `code_length` here is the reference that its
output is compared with.
"""

import argparse
import struct
from dataclasses import dataclass

import numpy as np

MAGIC = b"SCT2"
# Frequencies of one bin sum to this; 15 bits.
TOTAL = 32768
# Left, up, upper-left, upper-right.
NEAR = 4
# These signed, these absolute, and the absolute differences upper-left to left, upper-left to up, up to upper-right.
NEIGHBOURS = 2 * NEAR + 3
# Weights of a prediction count in 64ths; symbols and predictions stay within this.
PARTS, MAX_SYMBOL = 64, 4095


class TablesError(ValueError):
    """Bytes that are no tables, or symbols that do not fit them."""


class Reader:
    """Numbers from the front of the bytes of a tables file, little-endian."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, kind, number):
        """The next numbers, as an array."""
        size = np.dtype(kind).itemsize * number
        if self.at + size > len(self.data):
            raise TablesError(f"{self.at + size - len(self.data)} bytes too short")
        values = np.frombuffer(self.data, kind, number, self.at)
        self.at += size
        return values.copy()

    def alphabet(self, what):
        """(lowest difference, number of them) with entries of their own, of the `what` they are for."""
        lowest, alphabet = int(self.take("<i2", 1)[0]), int(self.take("<u2", 1)[0])
        if not alphabet or abs(lowest) > MAX_SYMBOL or lowest + alphabet - 1 > MAX_SYMBOL:
            raise TablesError(f"{what}: its alphabet is out of range")
        return lowest, alphabet

    def frequencies(self, number, alphabet, what):
        """uint16 [number, alphabet + 1]: frequency tables; the last entry is the escape."""
        tables = self.take("<u2", number * (alphabet + 1)).reshape(number, alphabet + 1)
        if np.any(tables == 0) or np.any(tables.sum(1, dtype=np.int64) != TOTAL):
            raise TablesError(f"{what}: frequencies do not sum to {TOTAL}")
        return tables

    @property
    def is_done(self):
        """Whether nothing is left."""
        return self.at == len(self.data)


@dataclass
class Channel:
    """The context function of one channel and its frequency tables."""

    minimum: int  # of the difference from the prediction
    predict: np.ndarray  # int8 [4]
    weight: np.ndarray  # int8 [11]
    previous: np.ndarray  # int8 [P]
    threshold: np.ndarray  # int32 [B - 1], ascending
    frequency: np.ndarray  # uint16 [B, A + 1]; entry A is the escape

    @property
    def alphabet(self):
        """Differences that have an entry of their own."""
        return self.frequency.shape[1] - 1


@dataclass
class Tables:
    """One set of tables. What is coded is a symbol's difference from its prediction.

    Differences minimum .. minimum + A - 1 of a channel have entries of their own; any other is an escape.
    """

    channels: list

    def to_bytes(self):
        """The file form, little-endian."""
        first = self.channels[0]
        out = [MAGIC, struct.pack("<HBB", len(self.channels), len(first.frequency), len(first.previous))]
        for channel in self.channels:
            out.append(struct.pack("<hH", channel.minimum, channel.alphabet))
            for weights in (channel.predict, channel.weight, channel.previous):
                out.append(weights.astype("<i1").tobytes())
            out.append(channel.threshold.astype("<i4").tobytes())
            out.append(channel.frequency.astype("<u2").tobytes())
        return b"".join(out)

    @classmethod
    def read(cls, reader):
        """Reads one set, after its magic number, and checks every rule of it."""
        count = int(reader.take("<u2", 1)[0])
        bins, previous = (int(v) for v in reader.take("<u1", 2))
        if not (count and 1 <= bins <= 16 and previous <= 6):
            raise TablesError("a size in the header is out of range")
        channels = []
        for index in range(count):
            what = f"channel {index}"
            minimum, alphabet = reader.alphabet(what)
            channel = Channel(
                minimum,
                reader.take("<i1", NEAR),
                reader.take("<i1", NEIGHBOURS),
                reader.take("<i1", previous),
                reader.take("<i4", bins - 1),
                reader.frequencies(bins, alphabet, what),
            )
            if np.any(np.diff(channel.threshold.astype(np.int64)) < 0):
                raise TablesError(f"{what}: thresholds are not ascending")
            channels.append(channel)
        return cls(channels)

    def code_length(self, symbols):
        """Ideal length in bits of int [C, h, w] `symbols`, per channel: float64 [C]."""
        if len(symbols) != len(self.channels):
            raise TablesError(f"{len(symbols)} channels of symbols, {len(self.channels)} of tables")
        bits = np.zeros(len(symbols))
        for index, channel in enumerate(self.channels):
            seen = features(symbols, index, len(channel.previous))
            weight = np.concatenate([channel.weight, channel.previous]).astype(np.int32)
            score = np.tensordot(weight, seen, 1)
            chosen = np.searchsorted(channel.threshold, score, side="right")
            differences = symbols[index].astype(np.int32) - predictions(symbols, index, channel.predict)
            entry = entries(differences, channel.minimum, channel.alphabet)
            bits[index] = np.log2(TOTAL / channel.frequency[chosen, entry].astype(np.float64)).sum()
            # An escape is followed by the symbol itself.
            bits[index] += 16 * np.count_nonzero(entry == channel.alphabet)
        return bits


def neighbours(plane):
    """int32 [4, h, w]: left, up, upper-left and upper-right of int `plane` [h, w], 0 outside."""
    height, width = plane.shape
    padded = np.pad(plane.astype(np.int32), ((1, 0), (1, 1)))
    left, up = padded[1:, :width], padded[:height, 1 : width + 1]
    return np.stack([left, up, padded[:height, :width], padded[:height, 2:]])


def features(symbols, channel, previous):
    """int32 [11 + previous, h, w]: what the context of `channel` sees in `symbols` [C, h, w]."""
    plane = symbols[channel]
    left, up, up_left, up_right = signed = neighbours(plane)
    near = [*signed, *np.abs(signed), abs(left - up_left), abs(up - up_left), abs(up_right - up)]
    for back in range(1, previous + 1):
        here = symbols[channel - back] if channel >= back else np.zeros_like(plane)
        near.append(np.abs(here.astype(np.int32)))
    return np.stack(near)


def predictions(symbols, channel, predict):
    """What the weights `predict` say of channel `channel` of `symbols`, int32 [h, w]."""
    total = np.tensordot(np.asarray(predict, dtype=np.int32), neighbours(symbols[channel]), 1)
    return np.clip((total + PARTS // 2) // PARTS, -MAX_SYMBOL, MAX_SYMBOL)


def entries(differences, minimum, alphabet):
    """Index of each difference's entry; `alphabet` is the escape."""
    index = differences.astype(np.int64) - minimum
    return np.where((index >= 0) & (index < alphabet), index, alphabet)


def main():
    """Prints the ideal code length of a file of symbols, int16 little-endian, [C, h, w]."""
    from .wide import read_all

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("tables")
    parser.add_argument("symbols")
    parser.add_argument("height", type=int)
    parser.add_argument("width", type=int)
    parser.add_argument("--quality", type=int, default=0, help="which set of tables, from 0")
    args = parser.parse_args()
    with open(args.tables, "rb") as file:
        tables = read_all(file.read())[args.quality]
    symbols = np.fromfile(args.symbols, "<i2").reshape(-1, args.height, args.width)
    bits = tables.code_length(symbols)
    print(f"{bits.sum():.1f} bits, {bits.sum() / 8:.1f} bytes, {bits.sum() / symbols.size:.4f} bits per symbol")


if __name__ == "__main__":
    main()
