"""The second form of tables.bin, of a context that sees every channel: its file form, its code length, and how it is learned.

Two weighted sums over the symbols of the places to the left and above and of the channels before
foresee each symbol: its value, and how far off that will be. The second chooses one of the levels,
and each level has frequency tables that all channels share. Integers alone; sums are modulo 2^32.
"""

import struct
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from . import tables
from .count import frequencies
from .nets.light import CORNERS, mass
from .tables import MAX_SYMBOL, TOTAL, Reader, Tables, TablesError, entries

MAGIC = b"SCT3"
# A foreseen value counts in this many parts of a symbol.
PARTS = 8
# Places around, as (row, column) of a kernel: left and above, then the corners above left and above right.
PLACES, OUTER = ((1, 0), (0, 1)), ((0, 0), (0, 2))
MAX_LEVELS, MAX_SHIFT = 64, 14
# Classes of a sum of errors: 0 to 15, then by the highest bit and the three below it.
CLASSES = 232
# Levels: usual errors of SMALLEST, STEP times that, and so on; those below WHOLE have a table for each part.
SMALLEST, STEP, LEVELS, WHOLE = 0.05, 1.2, 44, 3.0
# Weights of errors stay below this: such a sum seldom needs more than 32 bits.
MAX_SCALE = 2047
# Symbols that the assumed distribution counts for in each table.
ASSUMED = 200.0


@dataclass
class Wide:
    """One set of tables."""

    shift: np.ndarray  # uint8 [C]: fractional bits of the weights of values
    level: np.ndarray  # uint8 [C, CLASSES]: the level of each class of a sum of errors
    value: np.ndarray  # int16 [C, 2 C + 2 K]: weights of values left, above, and at the corners
    error: np.ndarray  # int16 [C, 2 C + 2]: weights of errors left, above, and at the corners in the own channel
    here: np.ndarray  # int16 [2, C, C]: of values and of errors at the same place; from the own channel on 0
    lowest: list  # of the difference from the rounded foreseen value, for each level
    frequency: list  # uint16 [PARTS or 1, A + 1] for each level; entry A is the escape

    @property
    def fine(self):
        """Levels with a table for each part."""
        return sum(len(table) > 1 for table in self.frequency)

    @property
    def corners(self):
        """Channels that are seen at the corners."""
        return self.value.shape[1] // 2 - len(self.shift)

    def to_bytes(self):
        """The file form, little-endian."""
        channels, levels = len(self.shift), len(self.frequency)
        out = [MAGIC, struct.pack("<HHBB", channels, self.corners, levels, self.fine)]
        for channel in range(channels):
            out.append(struct.pack("<B", self.shift[channel]))
            out.append(self.level[channel].tobytes())
            for around, here in zip((self.value[channel], self.error[channel]), self.here[:, channel, :channel]):
                for weights in (around[: 2 * channels], here, around[2 * channels :]):
                    out.append(weights.astype("<i2").tobytes())
        for lowest, table in zip(self.lowest, self.frequency):
            out.append(struct.pack("<hH", lowest, table.shape[1] - 1))
            out.append(table.astype("<u2").tobytes())
        return b"".join(out)

    @classmethod
    def read(cls, reader):
        """Reads one set, after its magic number, and checks every rule of it."""
        channels, corners = (int(v) for v in reader.take("<u2", 2))
        levels, fine = (int(v) for v in reader.take("<u1", 2))
        if not (1 <= channels <= 256 and corners <= channels and 1 <= levels <= MAX_LEVELS and fine <= levels):
            raise TablesError("a size in the header is out of range")
        shift, level = np.zeros(channels, np.uint8), np.zeros((channels, CLASSES), np.uint8)
        value = np.zeros((channels, 2 * (channels + corners)), np.int16)
        error = np.zeros((channels, 2 * channels + 2), np.int16)
        here = np.zeros((2, channels, channels), np.int16)
        for channel in range(channels):
            shift[channel] = reader.take("<u1", 1)[0]
            level[channel] = reader.take("<u1", CLASSES)
            for kind, around in enumerate((value, error)):
                around[channel, : 2 * channels] = reader.take("<i2", 2 * channels)
                here[kind, channel, :channel] = reader.take("<i2", channel)
                around[channel, 2 * channels :] = reader.take("<i2", around.shape[1] - 2 * channels)
            if not 3 <= shift[channel] <= MAX_SHIFT:
                raise TablesError(f"channel {channel}: its shift is out of range")
            if np.any(level[channel] >= levels):
                raise TablesError(f"channel {channel}: a level is beyond the last")
        lowest, frequency = [], []
        for index in range(levels):
            what = f"level {index}"
            least, alphabet = reader.alphabet(what)
            lowest.append(least)
            frequency.append(reader.frequencies(PARTS if index < fine else 1, alphabet, what))
        return cls(shift, level, value, error, here, lowest, frequency)

    def foresee(self, symbols):
        """(int64 [C, n] rounded values, their parts, levels) of int [C, h, w] `symbols`, place by place."""
        channels = len(symbols)
        flat = symbols.reshape(channels, -1).astype(np.float64)
        # Such sums are exact in float64, and faster than integers.
        value, error, here = (w.astype(np.float64) for w in (self.value, self.error, self.here))
        sums = (value @ _around(symbols, self.corners) + here[0] @ flat).astype(np.int64)
        bits = self.shift.astype(np.int64)[:, None]
        value = _wrapped(sums + (1 << bits >> 4)) >> (bits - 3)
        value = np.clip(value, -PARTS * MAX_SYMBOL, PARTS * MAX_SYMBOL)
        whole = (value + PARTS // 2) >> 3
        off = np.abs(flat - whole)
        around = _around(off.reshape(symbols.shape), channels)
        own = np.split(around[2 * channels :], 2)
        sums = error[:, : 2 * channels] @ around[: 2 * channels] + here[1] @ off
        sums += error[:, -2:-1] * own[0] + error[:, -1:] * own[1]
        level = np.take_along_axis(self.level, _classes(_wrapped(sums.astype(np.int64))), 1)
        return whole, value - PARTS * whole + PARTS // 2, level

    def code_length(self, symbols):
        """Ideal length in bits of int [C, h, w] `symbols`, per channel: float64 [C]."""
        if len(symbols) != len(self.shift):
            raise TablesError(f"{len(symbols)} channels of symbols, {len(self.shift)} of tables")
        whole, part, level = self.foresee(symbols)
        differences = symbols.reshape(len(symbols), -1) - whole
        bits = np.zeros(differences.shape)
        for index, (lowest, table) in enumerate(zip(self.lowest, self.frequency)):
            some = level == index
            entry = entries(differences[some], lowest, table.shape[1] - 1)
            row = part[some] if len(table) > 1 else 0
            # An escape is followed by the symbol itself.
            bits[some] = np.log2(TOTAL / table[row, entry].astype(np.float64)) + 16 * (entry == table.shape[1] - 1)
        return bits.sum(1)


def _wrapped(sums):
    """Modulo 2^32, between -2^31 and 2^31 - 1."""
    return (sums + (1 << 31)) % (1 << 32) - (1 << 31)


def _classes(sums):
    """The class of each sum of errors."""
    sums = np.maximum(sums, 0)
    highest = np.frexp(np.maximum(sums, 16).astype(np.float64))[1] - 1
    return np.where(sums < 16, sums, 8 * (highest - 3) + (sums >> (highest - 3)))


def _class_ends():
    """The least sum of each class but the first, and the one after the last."""
    above = [(8 + low) << (highest - 3) for highest in range(4, 31) for low in range(8)]
    return np.array([*range(1, 16), *above, 1 << 31])


def _around(values, corners):
    """float64 [2 C + 2 K, n]: the channels of the places around each place of int [C, h, w]; 0 outside."""
    _, height, width = values.shape
    padded = np.pad(values.astype(np.float64), ((0, 0), (1, 0), (1, 1)))

    def at(place, count):
        row, column = place
        return padded[:count, row : row + height, column : column + width].reshape(count, -1)

    return np.concatenate([at(p, len(values)) for p in PLACES] + [at(p, corners) for p in OUTER])


def _fit(rate, quality, unit, symbols, steps, seed):
    """A copy of the rate model, fitted further to `symbols`, int16 [C, h, w] each, at one quality."""
    side, batch = 24, 8
    rate = rate.alone(quality)
    rng, zero = np.random.default_rng(seed), torch.zeros(batch, dtype=torch.int64)
    groups = [{"params": [rate.mean, rate.near], "lr": 0.02}, {"params": [rate.base, rate.slope, rate.floor, rate.shape], "lr": 0.01}]
    optimizer = torch.optim.Adam(groups)
    large = [s for s in symbols if min(s.shape[1:]) >= side] or symbols
    side = min(side, min(min(s.shape[1:]) for s in large))
    places = np.array([s.shape[1] * s.shape[2] for s in large], dtype=np.float64)
    unit = unit.expand(batch, -1, -1, -1)
    for step in range(steps):
        for group, start in zip(optimizer.param_groups, (0.02, 0.01)):
            group["lr"] = start * (0.02 + 0.98 * (1 - step / steps)) * min(1, (step + 1) / 20)
        cut = []
        for index in rng.choice(len(large), batch, p=places / places.sum()):
            top, left = (rng.integers(size - side + 1) for size in large[index].shape[1:])
            cut.append(large[index][:, top : top + side, left : left + side])
        hard = torch.from_numpy(np.stack(cut).astype(np.float32))
        optimizer.zero_grad()
        rate(hard, hard, zero, unit).mean().backward()
        optimizer.step()
    return rate


def _whole_numbers(weights, largest, most):
    """(int16 weights, fractional bits for each row): as many bits as `largest` allows, at most `most`."""
    peak = np.abs(weights).reshape(len(weights), -1).max(1)
    bits = np.clip(np.floor(np.log2(largest / np.maximum(peak, 1e-6))), 3, most).astype(np.int64)
    scaled = np.round(weights * 2.0 ** bits.reshape(-1, *[1] * (weights.ndim - 1)))
    return np.clip(scaled, -largest, largest).astype(np.int16), bits


def _assumed(share, scale, center, reach):
    """Masses of the differences -reach .. reach, foreseen at `center`, under the rate model's distribution."""
    away = torch.arange(-reach, reach + 1, dtype=torch.float64) - center
    return mass(away, torch.tensor(scale, dtype=torch.float64), share.double()).numpy()


@torch.no_grad()
def _tables(rate, unit, symbols):
    """The Wide of a fitted rate model of one quality."""
    channels, unit = len(rate.floor), unit.reshape(-1)
    ratio = (unit[:, None] / unit[None])[:, :, None, None]
    weights = [(w * ratio).numpy() for w in rate.weights()]
    mean, shift = _whole_numbers(weights[0].astype(np.float64), 32767, MAX_SHIFT)
    scale, bits = _whole_numbers(weights[1].astype(np.float64), MAX_SCALE, 24)
    corners = min(CORNERS, channels)
    value = [mean[:, :, r, c] for r, c in PLACES] + [mean[:, :corners, r, c] for r, c in OUTER]
    error = [scale[:, :, r, c] for r, c in PLACES] + [np.diagonal(scale[:, :, r, c])[:, None] for r, c in OUTER]
    value, error = np.concatenate(value, 1), np.concatenate(error, 1)
    here = np.stack([w[:, :, 1, 1] for w in (mean, scale)])
    sizes = SMALLEST * STEP ** np.arange(LEVELS)
    # The error that each class of a sum foresees, in the middle of the class.
    base, slope, floor = rate.base[0].numpy(), rate.slope.numpy(), F.softplus(rate.floor).numpy()
    ends = np.concatenate([[0], _class_ends()]).astype(np.float64)
    middle = np.where(np.arange(CLASSES) < 16, ends[:-1], 0.5 * (ends[:-1] + ends[1:]))
    seen = middle[None] / 2.0 ** bits[:, None] + floor[:, None]
    foreseen = base[:, None] + slope[:, None] * np.log(seen)
    level = np.round((foreseen - np.log(SMALLEST)) / np.log(STEP)).clip(0, LEVELS - 1).astype(np.uint8)
    made = Wide(shift.astype(np.uint8), level, value, error, here, [], [])
    fine = int(np.count_nonzero(sizes < WHOLE))
    reach = [min(1000, int(np.ceil(9 * size + 2))) for size in sizes]
    counts = [np.zeros((PARTS if level < fine else 1, 2 * reach[level] + 2)) for level in range(LEVELS)]
    for picture in symbols:
        whole, part, level = made.foresee(picture)
        differences = picture.reshape(channels, -1) - whole
        for index, count in enumerate(counts):
            some = level == index
            entry = entries(differences[some], -reach[index], 2 * reach[index] + 1)
            row = part[some] if index < fine else 0
            count += np.bincount(row * count.shape[1] + entry, minlength=count.size).reshape(count.shape)
    share = rate.shape.softmax(0)
    for index, count in enumerate(counts):
        for row in range(len(count)):
            center = (row - PARTS // 2) / PARTS if index < fine else 0.0
            expected = _assumed(share, float(sizes[index]), center, reach[index])
            count[row, :-1] += ASSUMED * expected
            count[row, -1] += ASSUMED * max(1 - expected.sum(), 1e-6)
        made.lowest.append(-reach[index])
        made.frequency.append(frequencies(count))
    return made


def learn(rate, quality, unit, symbols, steps, seed):
    """Tables for `symbols`, int16 [C, h, w] each, and figures: what a fourth of the pictures take.

    `rate` is the codec's rate model, `unit` [1, C, 1, 1] the symbols' usual sizes.
    """
    made = _tables(_fit(rate, quality, unit, symbols, steps, seed), unit, symbols)
    some = symbols[::4]
    bits = sum(made.code_length(s).sum() for s in some)
    return made, {"bits_per_symbol": float(bits) / sum(s.size for s in some)}


def read_all(data):
    """The sets of tables in a file, one after another, each of either form."""
    reader, sets = Reader(data), []
    while not sets or not reader.is_done:
        form = FORMS.get(reader.take("<u1", len(MAGIC)).tobytes())
        if form is None:
            raise TablesError("not a tables file")
        sets.append(form.read(reader))
    return sets


FORMS = {tables.MAGIC: Tables, MAGIC: Wide}
