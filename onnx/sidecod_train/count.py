"""Learns tables.bin: chooses each channel's context function and counts its frequencies."""

import numpy as np

from .tables import NEAR, NEIGHBOURS, PARTS, TOTAL, Channel, Tables, entries, features, predictions

# A context starts from this many quantiles, of which neighbours are joined until `bins` are left.
FINE = 96


def frequencies(counts):
    """uint16 frequencies, each at least 1, that sum to TOTAL, for `counts` [.., A + 1]."""
    counts = np.asarray(counts, dtype=np.float64) + 1e-3
    share = counts / counts.sum(-1, keepdims=True) * (TOTAL - counts.shape[-1])
    out = 1 + np.floor(share).astype(np.int64)
    flat_out = out.reshape(-1, out.shape[-1])
    # What rounding down left over goes to the most frequent symbol.
    for row in flat_out:
        row[row.argmax()] += TOTAL - row.sum()
    return flat_out.reshape(out.shape).astype(np.uint16)


def _cost(counts):
    """Bits that `counts` [.., A + 1] take with the table made of themselves."""
    total = counts.sum(-1, keepdims=True)
    return np.where(counts > 0, counts * np.log2(np.maximum(total, 1) / np.maximum(counts, 1e-9)), 0.0).sum(-1)


def thresholds(score, entry, size, bins):
    """Thresholds on `score` for at most `bins` bins, their counts and the bits they take; inputs are flat."""
    # Quantiles of some thousands are as good as those of all.
    some = score[:: max(1, len(score) // 8000)]
    edges = np.unique(np.quantile(some, np.arange(1, FINE) / FINE, method="higher")).astype(np.int64)
    chosen = np.searchsorted(edges, score, side="right")
    counts = np.bincount(chosen * size + entry, minlength=(len(edges) + 1) * size).reshape(-1, size)
    rows, costs = counts.astype(np.float64), _cost(counts)
    joined = _cost(counts[:-1] + counts[1:])
    while len(rows) > bins:
        at = int(np.argmin(joined - costs[:-1] - costs[1:]))
        rows[at] += rows[at + 1]
        costs[at] = joined[at]
        rows, costs = np.delete(rows, at + 1, 0), np.delete(costs, at + 1)
        edges, joined = np.delete(edges, at), np.delete(joined, at)
        for pair in (at - 1, at):
            if 0 <= pair < len(joined):
                joined[pair] = _cost(rows[pair] + rows[pair + 1])
    return edges.tolist(), list(rows), float(costs.sum())


def _squares(rows, wanted):
    """Least-squares weights of `rows` [K, n] and a constant for `wanted` [n]; the constant is left out."""
    matrix = np.concatenate([rows, np.ones((1, rows.shape[1]))]).T.astype(np.float64)
    return np.linalg.lstsq(matrix, wanted.astype(np.float64), rcond=None)[0][:-1]


def _foresights(near, target):
    """Prediction weights worth trying: none, and the best linear one where it takes a fifth of the variance."""
    none = np.zeros(NEAR, dtype=np.int64)
    weights = np.clip(np.round(_squares(near, target) * PARTS), -127, 127).astype(np.int64)
    left_over = np.var(target - np.tensordot(weights, near, 1) / PARTS)
    return [none, weights] if left_over < 0.8 * np.var(target) else [none]


def _patterns(seen, target, channel, previous):
    """Context weights worth trying for one channel: int [11 + previous] each."""
    size = NEIGHBOURS + previous
    out = []

    def fixed(signed, absolute, apart, before):
        vector = np.zeros(size, dtype=np.int64)
        vector[:NEAR], vector[NEAR : 2 * NEAR], vector[2 * NEAR : NEIGHBOURS] = signed, absolute, apart
        vector[NEIGHBOURS:] = before[:previous] + [0] * (previous - len(before))
        out.append(vector)

    none, same = [0, 0, 0, 0], [0, 0, 0]
    fixed(none, none, same, [])
    for before in ([], [2], [2, 1], [3, 2, 1, 1]):
        fixed([2, 2, 0, 0], none, same, before)
        fixed([3, 3, -2, 1], none, same, before)
        fixed(none, [2, 2, 1, 1], same, before)
        fixed(none, none, [2, 2, 1], before)
    # Least squares: the best prediction of the value, and of its absolute value.
    earlier = [NEIGHBOURS + b for b in range(min(previous, channel))]
    signed, absolute = list(range(NEAR)) + earlier, list(range(NEAR, NEIGHBOURS)) + earlier
    for columns, wanted in ((signed, target), (absolute, np.abs(target))):
        solution = _squares(seen[columns], wanted)
        scale = 60 / max(np.abs(solution).max(), 1e-6)
        vector = np.zeros(size, dtype=np.int64)
        vector[columns] = np.round(solution * scale)
        out.append(vector)
    return out


def _refine(seen, entry, size, bins, best, rounds):
    """Changes one weight at a time while that saves bits; `best` is (bits, vector)."""
    for step in rounds:
        for at in range(len(best[1])):
            for change in (-step, step):
                vector = best[1].copy()
                vector[at] = np.clip(vector[at] + change, -127, 127)
                bits = thresholds(np.tensordot(vector, seen, 1), entry, size, bins)[2]
                if bits < best[0]:
                    best = (bits, vector)
    return best


def _alphabet(differences, one_in=20000):
    """(lowest, number) of the differences with entries of their own: -1 to 1, and all but one in so many."""
    ordered = np.sort(differences)
    rare = len(ordered) // (2 * one_in)
    lowest, highest = min(-1, int(ordered[rare])), max(1, int(ordered[len(ordered) - 1 - rare]))
    return lowest, highest - lowest + 1


def count(symbols, bins, previous=None, sample=150000, seed=0):
    """Tables for `symbols`, a list of int [C, h, w], and the bits per symbol with and without context.

    Context functions are chosen on `sample` places drawn at random, frequencies counted on all.
    """
    channels = symbols[0].shape[0]
    previous = min(6, channels - 1) if previous is None else previous
    rng, out = np.random.default_rng(seed), []
    with_context = without = 0.0
    for channel in range(channels):
        seen = np.concatenate(
            [features(s, channel, previous).reshape(NEIGHBOURS + previous, -1) for s in symbols], 1
        )
        target = np.concatenate([s[channel].reshape(-1) for s in symbols]).astype(np.int64)
        some = rng.permutation(len(target))[:sample]
        part = seen[:, some].astype(np.float64)
        best = None
        for predict in _foresights(part[:NEAR], target[some]):
            differences = target - np.concatenate([predictions(s, channel, predict).reshape(-1) for s in symbols])
            lowest, alphabet = _alphabet(differences)
            entry, size = entries(differences, lowest, alphabet), alphabet + 1
            for vector in _patterns(part, differences[some], channel, previous):
                bits = thresholds(np.tensordot(vector, part, 1), entry[some], size, bins)[2]
                if best is None or bits < best[0]:
                    best = (bits, vector, predict, lowest, entry, size)
        _, vector, predict, lowest, entry, size = best
        vector = _refine(part, entry[some], size, bins, best[:2], (12, 4))[1]
        score = np.tensordot(vector, seen, 1)
        edges, rows, bits = thresholds(score, entry, size, bins)
        # Fewer distinct scores than bins: repeated thresholds leave the bins between them unused.
        spare = bins - len(rows)
        edges, rows = edges + [edges[-1] if edges else 0] * spare, rows + [rows[-1]] * spare
        rows = _in_order(score, entry, edges, size, bins, rows)
        with_context += bits
        without += _plain_cost(target)
        out.append(
            Channel(
                lowest,
                predict.astype(np.int8),
                vector[:NEIGHBOURS].astype(np.int8),
                vector[NEIGHBOURS:].astype(np.int8),
                np.array(edges, dtype=np.int32),
                frequencies(np.stack(rows)),
            )
        )
    total = sum(s.size for s in symbols)
    figures = {"bits_per_symbol": with_context / total, "bits_per_symbol_without_context": without / total}
    return Tables(out), figures


def without_context(symbols):
    """What `count` returns, with one table for each channel."""
    channels, bits = [], 0.0
    none = np.zeros(NEIGHBOURS, np.int8)
    for values in np.concatenate([s.reshape(len(s), -1) for s in symbols], 1).astype(np.int64):
        bits += _plain_cost(values)
        lowest, alphabet = _alphabet(values, one_in=4000)
        counts = np.bincount(entries(values, lowest, alphabet), minlength=alphabet + 1)
        channels.append(
            Channel(lowest, none[:NEAR], none, none[:0], np.zeros(0, np.int32), frequencies(counts[None]))
        )
    figure = bits / sum(s.size for s in symbols)
    return Tables(channels), {"bits_per_symbol": figure, "bits_per_symbol_without_context": figure}


def _plain_cost(values):
    """Bits that `values` take with one table of all of them."""
    return float(_cost(np.unique(values, return_counts=True)[1].astype(np.float64)))


def _in_order(score, entry, edges, size, bins, rows):
    """Counts per bin for the final `edges`; a bin that no symbol falls into keeps the counts in `rows`."""
    chosen = np.searchsorted(edges, score, side="right")
    counts = np.bincount(chosen * size + entry, minlength=bins * size).reshape(bins, size)
    return [counts[i] if counts[i].sum() else rows[i] for i in range(bins)]
