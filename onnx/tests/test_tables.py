"""The entropy tables: file form, rules, code length."""

import sys
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sidecod_train import count, tables  # noqa: E402


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
        again = tables.Tables.all_from_bytes(data)[0]
        self.assertEqual(len(tables.Tables.all_from_bytes(data + data)), 2)
        self.assertEqual(again.to_bytes(), data)
        self.assertEqual(
            tables.code_length(self.symbols[0], again).sum(),
            tables.code_length(self.symbols[0], self.model).sum(),
        )

    def test_damaged_bytes_are_refused(self):
        data = self.model.to_bytes()
        for bad in (data[:-1], data + b"\0", b"XXXX" + data[4:], b""):
            with self.assertRaises(tables.TablesError):
                tables.Tables.all_from_bytes(bad)
        changed = bytearray(data)
        changed[-1] ^= 1
        with self.assertRaises(tables.TablesError):
            tables.Tables.all_from_bytes(bytes(changed))

    def test_code_length_is_the_one_of_the_definition(self):
        symbols = self.symbols[1][:, :9, :11].copy()
        symbols[1, 3, 4], symbols[2, 0, 0] = 100, -4095
        self.assertAlmostEqual(
            tables.code_length(symbols, self.model).sum(), by_hand(symbols, self.model), places=6
        )

    def test_context_saves_bits_and_the_estimate_holds(self):
        figures = self.figures
        self.assertLess(figures["bits_per_symbol"], 0.8 * figures["bits_per_symbol_without_context"])
        real = sum(tables.code_length(s, self.model).sum() for s in self.symbols)
        estimate = figures["bits_per_symbol"] * sum(s.size for s in self.symbols)
        self.assertAlmostEqual(real / estimate, 1.0, delta=0.01)

    def test_one_value_only(self):
        flat = [np.zeros((2, 5, 5), np.int16)]
        model, _ = count.count(flat, 16)
        tables.Tables.all_from_bytes(model.to_bytes())
        self.assertLess(tables.code_length(flat[0], model).sum(), 1.0)


if __name__ == "__main__":
    unittest.main()
