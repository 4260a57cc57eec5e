"""The entropy tables: file form, rules, code length."""

import sys
import unittest
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sidecod_train import count, tables, wide  # noqa: E402
from sidecod_train.nets.light import Rate  # noqa: E402


def walk(seed, shape=(3, 40, 56)):
    """Symbols -4..3 that resemble their neighbours, as those of a photo do."""
    rng = np.random.default_rng(seed)
    out = np.cumsum(np.cumsum(rng.normal(size=shape), 1), 2)
    out = out / out.std() * 2 + rng.normal(size=shape) * 0.3
    return np.clip(np.round(out), -4, 3).astype(np.int16)


def by_hand(symbols, model):
    """Code length in bits computed one symbol at a time, straight from the file's definition."""

    def at(c, y, x):
        inside = c >= 0 and 0 <= y < symbols.shape[1] and 0 <= x < symbols.shape[2]
        return int(symbols[c, y, x]) if inside else 0

    bits = 0.0
    for y in range(symbols.shape[1]):
        for x in range(symbols.shape[2]):
            for c, channel in enumerate(model.channels):
                near = [at(c, y, x - 1), at(c, y - 1, x), at(c, y - 1, x - 1), at(c, y - 1, x + 1)]
                left, up, up_left, up_right = near
                total = sum(int(w) * v for w, v in zip(channel.predict, near))
                difference = at(c, y, x) - (total + 32) // 64
                near += [abs(v) for v in near] + [abs(left - up_left), abs(up - up_left), abs(up_right - up)]
                score = sum(int(w) * v for w, v in zip(channel.weight, near))
                for back, w in enumerate(channel.previous, 1):
                    score += int(w) * abs(at(c - back, y, x))
                chosen = sum(1 for t in channel.threshold if t <= score)
                entry = difference - channel.minimum
                if not 0 <= entry < channel.alphabet:
                    entry = channel.alphabet
                    bits += 16
                bits -= np.log2(int(channel.frequency[chosen][entry]) / 32768)
    return bits


class TablesTest(unittest.TestCase):
    def setUp(self):
        self.symbols = [walk(1), walk(2)]
        self.model, self.figures = count.count(self.symbols, 8)

    def test_frequencies_sum_and_none_is_zero(self):
        for channel in self.model.channels:
            self.assertTrue((channel.frequency >= 1).all())
            self.assertTrue((channel.frequency.sum(1, dtype=np.int64) == tables.TOTAL).all())
        counts = np.array([[0, 10**9, 0, 0], [1, 1, 1, 1], [0, 0, 0, 7]])
        self.assertTrue((count.frequencies(counts).sum(1, dtype=np.int64) == tables.TOTAL).all())

    def test_bytes_round_trip(self):
        data = self.model.to_bytes()
        again = wide.read_all(data)[0]
        self.assertEqual(len(wide.read_all(data + data)), 2)
        self.assertEqual(again.to_bytes(), data)
        self.assertEqual(
            again.code_length(self.symbols[0]).sum(),
            self.model.code_length(self.symbols[0]).sum(),
        )

    def test_damaged_bytes_are_refused(self):
        data = self.model.to_bytes()
        for bad in (data[:-1], data + b"\0", b"XXXX" + data[4:], b""):
            with self.assertRaises(tables.TablesError):
                wide.read_all(bad)
        changed = bytearray(data)
        changed[-1] ^= 1
        with self.assertRaises(tables.TablesError):
            wide.read_all(bytes(changed))

    def test_code_length_is_the_one_of_the_definition(self):
        symbols = self.symbols[1][:, :9, :11].copy()
        symbols[1, 3, 4], symbols[2, 0, 0] = 100, -4095
        self.assertAlmostEqual(
            self.model.code_length(symbols).sum(), by_hand(symbols, self.model), places=6
        )

    def test_context_saves_bits_and_the_estimate_holds(self):
        figures = self.figures
        self.assertLess(figures["bits_per_symbol"], 0.8 * figures["bits_per_symbol_without_context"])
        real = sum(self.model.code_length(s).sum() for s in self.symbols)
        estimate = figures["bits_per_symbol"] * sum(s.size for s in self.symbols)
        self.assertAlmostEqual(real / estimate, 1.0, delta=0.01)

    def test_one_value_only(self):
        flat = [np.zeros((2, 5, 5), np.int16)]
        model, _ = count.count(flat, 16)
        wide.read_all(model.to_bytes())
        self.assertLess(model.code_length(flat[0]).sum(), 1.0)


class WideTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        torch.manual_seed(1)
        cls.symbols, unit = [walk(1), walk(2), walk(3)], torch.full((1, 3, 1, 1), 2.0)
        cls.model, cls.figures = wide.learn(Rate(3, 1), 0, unit, cls.symbols[:2], 300, 1)

    def test_bytes_round_trip(self):
        data = self.model.to_bytes()
        first, second = wide.read_all(data + data)
        self.assertEqual(first.to_bytes(), data)
        self.assertEqual(second.to_bytes(), data)
        self.assertEqual(first.code_length(self.symbols[2]).sum(), self.model.code_length(self.symbols[2]).sum())

    def test_damaged_bytes_are_refused(self):
        data = self.model.to_bytes()
        for bad in (data[:-1], data + b"\0", b"XXXX" + data[4:], data[:8] + b"\xff" + data[9:]):
            with self.assertRaises(tables.TablesError):
                wide.read_all(bad)

    def test_code_length_is_the_one_of_the_definition(self):
        model = self.model
        symbols = self.symbols[2][:, :7, :9].copy()
        symbols[1, 3, 4], symbols[2, 0, 0] = 100, -4095
        count, height, width = symbols.shape
        off, bits = np.zeros(symbols.shape, np.int64), 0.0

        def total(of, kind, c, y, x):
            def at(channel, row, column):
                inside = 0 <= row and 0 <= column < width
                return int(of[channel, row, column]) if inside else 0

            seen = [at(k, y, x - 1) for k in range(count)] + [at(k, y - 1, x) for k in range(count)]
            corners = [c] if kind else range(model.corners)
            seen += [at(k, y - 1, x + side) for side in (-1, 1) for k in corners]
            around = (model.error if kind else model.value)[c]
            here = sum(int(model.here[kind, c, k]) * at(k, y, x) for k in range(c))
            return here + sum(int(w) * v for w, v in zip(around, seen))

        for y in range(height):
            for x in range(width):
                for c in range(count):
                    shift = int(model.shift[c]) - 3
                    value = (total(symbols, 0, c, y, x) + (1 << shift >> 1)) >> shift
                    whole = (value + 4) >> 3
                    error = total(off, 1, c, y, x)
                    highest = max(error, 16).bit_length() - 1
                    kind = error if error < 16 else 8 * (highest - 3) + (error >> (highest - 3))
                    level = model.level[c, kind]
                    table, difference = model.frequency[level], int(symbols[c, y, x]) - whole
                    row = table[value - 8 * whole + 4 if len(table) > 1 else 0]
                    entry = difference - model.lowest[level]
                    if not 0 <= entry < len(row) - 1:
                        entry = len(row) - 1
                        bits += 16
                    bits -= np.log2(int(row[entry]) / 32768)
                    off[c, y, x] = abs(difference)
        self.assertAlmostEqual(model.code_length(symbols).sum(), bits, places=6)

    def test_it_codes_pictures_it_has_not_seen_shorter_than_the_narrow_form(self):
        narrow, _ = count.count(self.symbols[:2], 16)
        new = self.symbols[2]
        self.assertLess(self.model.code_length(new).sum(), narrow.code_length(new).sum())


if __name__ == "__main__":
    unittest.main()
