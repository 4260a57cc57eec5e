"""Two variants of the light codec, each trained for some seconds, and what is made of their figures."""

import contextlib
import functools
import io
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sidecod_train import ablation, config  # noqa: E402

CONFIG = ROOT / "configs/smoke-light.toml"
PLAIN = "encoder: one convolution, no residual"


class AblationTest(unittest.TestCase):
    def test_variants_are_trained_once_and_compared(self):
        with tempfile.TemporaryDirectory() as folder:
            arguments = ["--config", str(CONFIG), "--out", folder, "--only", "as configured", PLAIN]
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                results = ablation.main(arguments)
                checkpoints = [path.stat().st_mtime_ns for path in Path(folder).glob("*/checkpoint.pt")]
                self.assertEqual(ablation.main(arguments), results)
            self.assertEqual([path.stat().st_mtime_ns for path in Path(folder).glob("*/checkpoint.pt")], checkpoints)
        self.assertEqual([result["variant"] for result in results], ["as configured", PLAIN])
        self.assertNotEqual(results[0]["rows"], results[1]["rows"])
        for result in results:
            (fine_bytes, fine_kl, fine_error), (coarse_bytes, coarse_kl, coarse_error) = result["rows"]
            self.assertGreater(fine_bytes, coarse_bytes)
            self.assertLess(fine_kl, coarse_kl)
            self.assertLess(fine_error, coarse_error)
        self.assertIn(f"| {PLAIN} |", printed.getvalue())

    def test_every_variant_changes_known_keys(self):
        standard = config.load(CONFIG)
        for name, changes in ablation.VARIANTS.items():
            variant = ablation.changed(standard, changes)
            for key, value in changes.items():
                *parts, field = key.split(".")
                self.assertIn(field, vars(functools.reduce(getattr, parts, standard)), name)
                self.assertEqual(getattr(functools.reduce(getattr, parts, variant), field), value, name)

    def test_bytes_are_read_off_the_curve(self):
        rows = [(8000, 0.1, 0.0), (2000, 0.4, 0.0)]
        self.assertAlmostEqual(ablation.bytes_at(rows, 0.2), 4000)
        self.assertIsNone(ablation.bytes_at(rows, 0.05))


if __name__ == "__main__":
    unittest.main()
