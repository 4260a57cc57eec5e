"""A run of some seconds on the photos that the repository carries: train, resume, export, decode."""

import hashlib
import json
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sidecod_train import __main__ as command  # noqa: E402
from sidecod_train import config, data, export, losses, tables  # noqa: E402
from sidecod_train.net import SymbolDecoder, convolutions, plain  # noqa: E402
from sidecod_train.teacher import Teacher  # noqa: E402
from sidecod_train.train import Trainer  # noqa: E402

CONFIG = ROOT / "configs/smoke.toml"


class SmokeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.run_folder, cls.out = Path(folder.name) / "run", Path(folder.name) / "bundle"
        cls.manifest = command.main(
            ["--config", str(CONFIG), "--out", str(cls.out), "--run", str(cls.run_folder)]
        )
        cls.config = config.load(CONFIG)
        paths = data.splits(cls.config.data.dir)["train"]
        cls.photos = data.load_photos(paths, cls.config.data.max_side)
        cls.untrained = cls.trainer(cls.run_folder).codec
        cls.trained = cls.trainer(cls.run_folder)
        cls.trained.resume()
        cls.trained.codec.eval()

    @classmethod
    def trainer(cls, run):
        """A trainer at step 0."""
        return Trainer(cls.config, cls.photos, Teacher(cls.config.teacher), run)

    def test_loss_goes_down(self):
        lines = [json.loads(line) for line in (self.out / "train.jsonl").read_text().splitlines()]
        self.assertEqual(lines[0]["config"]["name"], "smoke")
        self.assertEqual(lines[-1]["step"], self.config.train.steps)
        # On the same crops before and after: from batch to batch the loss varies more than training saves.
        crops = data.Crops(self.photos, self.config.data, np.random.default_rng(123))
        pixels = torch.from_numpy(crops.batch(16))
        before, after = (self.loss(codec, pixels) for codec in (self.untrained, self.trained.codec))
        self.assertLess(after, 0.97 * before)

    def loss(self, codec, pixels):
        """The weighted loss of `codec` in eval mode."""
        codec.eval()
        with torch.no_grad():
            decoded = codec(pixels)
            return float(
                losses.total(self.config.loss, pixels, decoded, self.trained.teacher, convolutions(codec))[0]
            )

    def test_resumed_run_is_the_uninterrupted_one(self):
        with tempfile.TemporaryDirectory() as folder:
            straight = self.trainer(Path(folder) / "a")
            wanted = [straight.one_step()["loss"] for _ in range(3)]
            first = self.trainer(Path(folder) / "b")
            first.train(until=1)
            second = self.trainer(Path(folder) / "b")
            second.resume()
            self.assertEqual(second.step, 1)
            got = [second.one_step()["loss"] for _ in range(2)]
        np.testing.assert_allclose(got, wanted[1:], rtol=1e-4)

    def test_bundle_is_complete(self):
        written = json.loads((self.out / "manifest.json").read_text())
        self.assertEqual(written, self.manifest)
        for name in ("encoder.onnx", "decoder.pt", "decoder.onnx", "tables.bin"):
            content = (self.out / name).read_bytes()
            entry = written["files"][name]
            self.assertEqual(entry["bytes"], len(content))
            self.assertEqual(entry["sha256"], hashlib.sha256(content).hexdigest())
        centers = written["quantizer"]["centers"]
        self.assertEqual(centers, sorted(centers))
        report = written["qualities"][0]["report"]
        self.assertGreater(report["photos"], 0)
        self.assertGreater(report["psnr_db"], 15)
        self.assertLess(report["bits_per_symbol"], report["bits_per_symbol_without_context"])

    def test_exported_codec_is_the_trained_one(self):
        trainer = self.trained
        photo = data.pixels(self.photos[0])[:, :94, :121]
        padded = torch.from_numpy(data.pad_to(photo, 4))[None]
        self.assertEqual(tuple(padded.shape), (1, 3, 96, 124))
        with torch.no_grad():
            latent = trainer.codec.encoder(padded)
            wanted = trainer.codec(padded)
        quantizer = self.manifest["quantizer"]

        graph = onnx.load(str(self.out / "encoder.onnx")).graph
        self.assertEqual([node.op_type for node in graph.node], ["Conv"])
        weight = torch.from_numpy(numpy_helper.to_array(graph.initializer[0]).copy())
        torch.testing.assert_close(torch.nn.functional.conv2d(padded, weight, stride=4), latent)

        distance = (latent.unsqueeze(-1) - torch.tensor(quantizer["centers"])).abs()
        symbols = distance.argmin(-1) - quantizer["offset"]
        decoder = torch.jit.load(str(self.out / "decoder.pt"))
        with torch.no_grad():
            decoded = decoder(symbols.float())
        torch.testing.assert_close(decoded, wanted, rtol=1e-4, atol=1e-4)
        again = export.symbols_of(plain(trainer.codec), photo, quantizer["offset"])
        np.testing.assert_array_equal(again, symbols[0].numpy())

        model = tables.Tables.from_bytes((self.out / "tables.bin").read_bytes())
        self.assertLess(tables.code_length(again, model).sum(), 3 * again.size)

    def test_every_size_decodes(self):
        quantizer = self.manifest["quantizer"]
        module = SymbolDecoder(plain(self.trained.codec), quantizer["offset"]).eval()
        script = torch.jit.load(str(self.out / "decoder.pt"))
        session = None
        try:
            import onnxruntime

            session = onnxruntime.InferenceSession(str(self.out / "decoder.onnx"), providers=["CPUExecutionProvider"])
        except ImportError:
            onnx.checker.check_model(str(self.out / "decoder.onnx"))
        generator = torch.Generator().manual_seed(2)
        for height, width, batch in ((1, 1, 1), (1, 1, 4), (1, 7, 1), (3, 64, 4), (56, 56, 1), (64, 64, 1)):
            shape = (batch, 5, height, width)
            symbols = torch.randint(-9, 9, shape, generator=generator).float()
            with torch.no_grad():
                wanted = module(symbols)
                torch.testing.assert_close(script(symbols), wanted)
            self.assertEqual(tuple(wanted.shape), (batch, 3, 4 * height, 4 * width))
            self.assertGreaterEqual(float(wanted.min()), 0.0)
            self.assertLessEqual(float(wanted.max()), 1.0)
            if session is not None:
                got = session.run(None, {"symbols": symbols.numpy()})[0]
                np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-3, atol=1e-4)


class ConfigTest(unittest.TestCase):
    def test_unknown_key_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bad.toml"
            path.write_text('name = "x"\nversion = "1"\n[train]\nspeed = 3\n')
            with self.assertRaisesRegex(config.ConfigError, "train.speed: unknown key"):
                config.load(path, data="d", teacher="t")
            path.write_text('name = "x"\nversion = "1"\n[train]\nsteps = "3"\n')
            with self.assertRaisesRegex(config.ConfigError, "train.steps: expected int"):
                config.load(path, data="d", teacher="t")


if __name__ == "__main__":
    unittest.main()
