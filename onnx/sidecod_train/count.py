"""Learns tables.bin: chooses each channel's context function and counts its frequencies."""

import numpy as np

from .tables import NEIGHBOURS, TOTAL, Channel, Tables, entries, features

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
    edges = np.unique(np.quantile(score, np.arange(1, FINE) / FINE, method="higher")).astype(np.int64)
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


def _patterns(seen, target, channel, previous):
    """Weight vectors worth trying for one channel: int [8 + previous] each."""
    size = NEIGHBOURS + previous
    out = []

    def fixed(signed, absolute, before):
        vector = np.zeros(size, dtype=np.int64)
        vector[:4], vector[4:8] = signed, absolute
        vector[NEIGHBOURS:] = before[:previous] + [0] * (previous - len(before))
        out.append(vector)

    none = [0, 0, 0, 0]
    fixed(none, none, [])
    for before in ([], [2], [2, 1], [3, 2, 1, 1]):
        fixed([2, 2, 0, 0], none, before)
        fixed([3, 3, -2, 1], none, before)
        fixed(none, [2, 2, 1, 1], before)
    # Least squares: the best prediction of the value, and of its absolute value.
    signed = list(range(4)) + [NEIGHBOURS + b for b in range(min(previous, channel))]
    absolute = list(range(4, 8)) + [NEIGHBOURS + b for b in range(min(previous, channel))]
    for columns, wanted in ((signed, target), (absolute, np.abs(target))):
        matrix = np.concatenate([seen[columns], np.ones((1, seen.shape[1]))]).T.astype(np.float64)
        solution = np.linalg.lstsq(matrix, wanted.astype(np.float64), rcond=None)[0][:-1]
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


def count(symbols, minimum, alphabet, bins, previous=None, sample=150000, seed=0):
    """Tables for `symbols`, a list of int [C, h, w], and the bits per symbol with and without context.

    Context functions are chosen on `sample` places drawn at random, frequencies counted on all.
    """
    channels = symbols[0].shape[0]
    previous = min(6, channels - 1) if previous is None else previous
    size, rng, out = alphabet + 1, np.random.default_rng(seed), []
    with_context = without = 0.0
    for channel in range(channels):
        seen = np.concatenate(
            [features(s, channel, previous).reshape(NEIGHBOURS + previous, -1) for s in symbols], 1
        )
        target = np.concatenate([s[channel].reshape(-1) for s in symbols])
        entry = entries(target, minimum, alphabet)
        some = rng.permutation(len(target))[:sample]
        part, part_entry = seen[:, some].astype(np.float64), entry[some]
        best = None
        for vector in _patterns(part, target[some], channel, previous):
            bits = thresholds(np.tensordot(vector, part, 1), part_entry, size, bins)[2]
            if best is None or bits < best[0]:
                best = (bits, vector)
        best = _refine(part, part_entry, size, bins, best, (12, 4))
        score = np.tensordot(best[1], seen, 1)
        edges, rows, bits = thresholds(score, entry, size, bins)
        # Fewer distinct scores than bins: repeated thresholds leave the bins between them unused.
        spare = bins - len(rows)
        edges, rows = edges + [edges[-1] if edges else 0] * spare, rows + [rows[-1]] * spare
        rows = _in_order(score, entry, edges, size, bins, rows)
        with_context += bits
        without += float(_cost(np.bincount(entry, minlength=size).astype(np.float64)))
        out.append(
            Channel(
                best[1][:NEIGHBOURS].astype(np.int8),
                best[1][NEIGHBOURS:].astype(np.int8),
                np.array(edges, dtype=np.int32),
                frequencies(np.stack(rows)),
            )
        )
    total = sum(s.size for s in symbols)
    figures = {"bits_per_symbol": with_context / total, "bits_per_symbol_without_context": without / total}
    return Tables(minimum, alphabet, out), figures


def _in_order(score, entry, edges, size, bins, rows):
    """Counts per bin for the final `edges`; a bin that no symbol falls into keeps the counts in `rows`."""
    chosen = np.searchsorted(edges, score, side="right")
    counts = np.bincount(chosen * size + entry, minlength=bins * size).reshape(bins, size)
    return [counts[i] if counts[i].sum() else rows[i] for i in range(bins)]
