"""Draws latency.json of `sidecod-bench latency --out DIR` as figures beside it, each as SVG and PNG.

latency-wifi and latency-lte: end-to-end time of every method (figures 6 and 8 of the paper); latency-bandwidth:
against the link's bandwidth (figure 10); latency-background: against the traffic of others (figure 11). Figures 7 and
9 of the paper are of speech.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402
from matplotlib.ticker import ScalarFormatter  # noqa: E402


def bars(report, series, title, folder):
    """One bar for each method: median, and a line up to the 90th percentile."""
    rows = [row for row in report["summaries"] if row["series"] == series]
    figure, axis = pyplot.subplots(figsize=(8, 4.2))
    medians = [row["median_ms"] for row in rows]
    upper = [max(row["p90_ms"] - row["median_ms"], 0) for row in rows]
    colours = ["tab:red" if row["method"] == "plan" else "tab:blue" for row in rows]
    axis.bar(range(len(rows)), medians, yerr=[[0] * len(rows), upper], color=colours, capsize=3)
    axis.set_xticks(range(len(rows)), [row["method"] for row in rows], rotation=20, ha="right")
    axis.set_ylabel("ms end to end, median to 90th percentile")
    axis.grid(True, axis="y", linewidth=0.3)
    save(figure, report, title, folder / f"latency-{series}")


def lines(report, series, key, label, title, folder):
    """One line for each method: medians against a property of the link, both on log scales where it is bandwidth."""
    curves = {}
    for row in report["summaries"]:
        if row["series"] == series:
            curves.setdefault(row["method"], []).append((row[key], row["median_ms"]))
    figure, axis = pyplot.subplots(figsize=(8, 5))
    for method, points in curves.items():
        points.sort()
        style = {"linewidth": 3, "alpha": 0.6, "color": "tab:red"} if method == "plan" else {"linewidth": 1.2}
        axis.plot(*zip(*points), marker="o", markersize=3, label=method, **style)
    axis.set_yscale("log")
    if key == "megabits":
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.set_xlabel(label)
    axis.set_ylabel("ms end to end, median")
    axis.grid(True, which="both", linewidth=0.3)
    axis.legend(fontsize=8)
    save(figure, report, title, folder / f"latency-{series}")


def save(figure, report, title, path):
    figure.suptitle(f"{title}; {report['machine']}, {report['date']}", fontsize=9)
    figure.tight_layout()
    for suffix in ("svg", "png"):
        figure.savefig(f"{path}.{suffix}", dpi=130)


def main(folder):
    report = json.loads((folder / "latency.json").read_text(encoding="utf-8"))
    bars(report, "wifi", "450 Mbit/s, 2 ms each way", folder)
    bars(report, "lte", "20 Mbit/s, 25 ms each way, jitter 8 ms, loss 0.1 %", folder)
    lines(report, "bandwidth", "megabits", "Mbit/s", "10 ms each way", folder)
    lines(report, "background", "background", "Mbit/s that others send", "20 Mbit/s, 10 ms each way", folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
