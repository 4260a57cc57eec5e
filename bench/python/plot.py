"""Draws fidelity.json of `sidecod-bench fidelity --out DIR` as fidelity.svg and fidelity.png beside it."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402
from matplotlib.ticker import ScalarFormatter  # noqa: E402


def main(folder):
    """Panels of KL divergence, agreement and, with a detector, mAP against bytes; a line a codec."""
    report = json.loads((folder / "fidelity.json").read_text(encoding="utf-8"))
    curves = {}
    for row in report["codecs"]:
        curves.setdefault(row["name"], []).append(row)
    panels = 3 if report["scene"] else 2
    figure, (left, right, *third) = pyplot.subplots(1, panels, figsize=(6.5 * panels, 5.5))
    ours = set(report["bundles"])
    for name, rows in curves.items():
        rows.sort(key=lambda row: row["bytes_mean"])
        style = {"marker": "o", "markersize": 3, "label": name, "linewidth": 2.4 if name in ours else 1.0}
        for axis, key in ((left, "kl"), (right, "agreement")):
            axis.plot([row["bytes_mean"] for row in rows], [row[key] for row in rows], **style)
        for axis in third:
            seen = [row["detection"] for row in rows]
            axis.plot([each["bytes_mean"] for each in seen], [each["map_50_95"] for each in seen], **style)
    for axis in (left, right, *third):
        axis.set_xscale("log")
        axis.set_xlabel("mean bytes of a whole photo" if axis in third else "mean bytes of a 224x224 crop")
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(ScalarFormatter())
        axis.tick_params(axis="x", which="minor", labelsize=7, rotation=45)
        axis.grid(True, which="both", linewidth=0.3)
    left.set_yscale("log")
    left.set_ylabel("KL divergence to the uncompressed answer, nats (lower is better)")
    right.set_ylabel("same first class as uncompressed (higher is better)")
    for axis in third:
        axis.set_ylabel("mAP 0.5:0.95 of the detector's boxes (higher is better)")
    right.legend(fontsize=8, loc="lower right")
    figure.suptitle(f"{report['crops']} crops of {report['photos']} photos, {report['date']}", fontsize=10)
    figure.tight_layout()
    for suffix in ("svg", "png"):
        figure.savefig(folder / f"fidelity.{suffix}", dpi=130)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
