"""A run of some seconds on the photos that the repository carries: train, resume, export, decode."""

import dataclasses
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
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sidecod_train import __main__ as command  # noqa: E402
from sidecod_train import config, data, export, fold, losses, nets, warm, wide  # noqa: E402
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
        return Trainer(cls.config, cls.photos, [Teacher(t) for t in cls.config.teacher], run)

    def test_loss_goes_down(self):
        lines = [json.loads(line) for line in (self.out / "train.jsonl").read_text().splitlines()]
        self.assertEqual(lines[0]["config"]["name"], "smoke")
        self.assertEqual(lines[-1]["step"], self.config.train.steps)
        # On the same crops before and after: from batch to batch the loss varies more than training saves.
        pixels = torch.from_numpy(data.Crops(self.photos, self.config.data, 123, 16).batch(1, ()))
        before, after = (self.loss(codec, pixels) for codec in (self.untrained, self.trained.codec))
        self.assertLess(after, 0.97 * before)

    def loss(self, codec, pixels):
        """The weighted loss of `codec` in eval mode."""
        codec.eval()
        with torch.no_grad():
            decoded, bits = codec(pixels, None)
            weight, convolutions = torch.ones(len(pixels)), nets.convolutions(codec)
            terms = (pixels, decoded, bits, weight, self.trained.teachers, convolutions)
            return float(losses.total(self.config.loss, *terms)[0])

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

    def test_batches_made_ahead_are_the_same(self):
        settings = dataclasses.replace(self.config.data, workers=2)
        ahead, plain = (data.Crops(self.photos, c, 5, 2) for c in (settings, self.config.data))
        for number in (1, 2, 5):
            np.testing.assert_array_equal(ahead.batch(number, range(number + 1, number + 4)), plain.batch(number, ()))

    def test_small_photos_are_left_out(self):
        settings = dataclasses.replace(self.config.data, min_side=40)
        more = [Image.new("RGB", (200, 39)), *self.photos, Image.new("RGBA", (39, 200))]
        with_small, without = (data.Crops(photos, settings, 5, 4) for photos in (more, self.photos))
        np.testing.assert_array_equal(with_small.batch(1, ()), without.batch(1, ()))
        with self.assertRaisesRegex(data.DataError, "40 pixels"):
            data.Crops(more[:1], settings, 5, 4)

    def test_crops_of_a_device_are_cut_from_the_photos_at_their_sizes(self):
        settings = dataclasses.replace(self.config.data, crop=24, sides=[24, 32], colour=0.0)
        # Red grows to the right and green downwards, so that a pixel tells where it was.
        column, row = np.meshgrid(np.arange(64), np.arange(48))
        photo = np.stack([column * 4, row * 4, np.full_like(row, 90)], 2).astype(np.uint8)
        make = lambda photos, seed: data.DeviceCrops(photos, settings, seed, 16, torch.device("cpu"))  # noqa: E731
        crops = make([Image.fromarray(photo)], 5)
        batch = crops.batch(3, ())
        self.assertEqual(tuple(batch.shape), (16, 3, 24, 24))
        torch.testing.assert_close(batch, crops.batch(3, ()))
        self.assertFalse(torch.equal(batch, crops.batch(4, ())))
        across = (batch[:, 0, 12, -3] - batch[:, 0, 12, 2]).mul(255 / 19).round()
        # A shorter side of 24 halves the photo, one of 32 leaves two thirds; some are turned left to right.
        self.assertEqual({abs(int(slope)) for slope in across}, {6, 8})
        self.assertEqual({slope < 0 for slope in across.tolist()}, {True, False})
        down = batch[:, 1, -3, 12] - batch[:, 1, 2, 12]
        self.assertTrue((down > 0).all())
        self.assertTrue((batch[:, 2] * 255).sub(90).abs().max() < 1)

    def test_a_cut_out_of_a_device_lies_on_another_photo(self):
        settings = dataclasses.replace(self.config.data, crop=32, sides=[32], colour=0.0)
        shape = np.zeros((32, 64, 4), np.uint8)
        shape[:, 32:] = (255, 0, 0, 255)
        photos = [Image.fromarray(shape), Image.new("RGB", (40, 40), (0, 0, 255)), Image.new("RGB", (31, 90))]
        batch = data.DeviceCrops(photos, settings, 1, 40, torch.device("cpu")).batch(1, ())
        red, blue = ((batch[:, c] > 0.5).flatten(1).any(1) for c in (0, 2))
        self.assertTrue((red & blue).any())
        # Neither black nor transparent, and nothing of the photo that is too small.
        self.assertFalse((batch.amax(1) < 0.3).any())
        with self.assertRaisesRegex(data.DataError, "32 pixels"):
            data.DeviceCrops(photos[2:], settings, 1, 1, torch.device("cpu"))

    def test_cut_outs_give_no_symbols_for_the_tables(self):
        codec, settings = self.trained.codec.plain(), self.config.tables
        more = [Image.new("RGBA", (64, 64)), *self.photos]
        self.assertEqual(
            len(export.training_symbols(codec, 0, settings, more)),
            len(export.training_symbols(codec, 0, settings, self.photos)),
        )

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
            wanted, _ = trainer.codec(padded, None)
        quantizer = self.manifest["quantizer"]

        graph = onnx.load(str(self.out / "encoder.onnx")).graph
        self.assertEqual([node.op_type for node in graph.node], ["Conv"])
        weight = torch.from_numpy(numpy_helper.to_array(graph.initializer[0]).copy())
        torch.testing.assert_close(torch.nn.functional.conv2d(padded, weight, stride=4), latent)

        distance = (latent.unsqueeze(-1) - torch.tensor(quantizer["centers"])).abs()
        symbols = distance.argmin(-1) - quantizer["offset"]
        decoder = export.load_decoder(self.out / "decoder.pt")
        with torch.no_grad():
            decoded = decoder(symbols.float())
        # Weights are stored in half precision.
        torch.testing.assert_close(decoded, wanted, rtol=2e-3, atol=2e-3)
        again = export.symbols_of(trainer.codec.plain(), photo) - np.int16(quantizer["offset"])
        np.testing.assert_array_equal(again, symbols[0].numpy())

        model = wide.read_all((self.out / "tables.bin").read_bytes())[0]
        self.assertLess(model.code_length(again).sum(), 3 * again.size)

    def test_every_size_decodes(self):
        quantizer = self.manifest["quantizer"]
        module = export.halved(self.trained.codec.plain().symbol_decoder(quantizer["offset"]))
        script = export.load_decoder(self.out / "decoder.pt")
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


class LightTest(unittest.TestCase):
    """The light net at two qualities: what is exported is what was trained."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        out = Path(folder.name) / "bundle"
        cls.config = config.load(ROOT / "configs/smoke-light.toml")
        photos = data.load_photos(data.splits(cls.config.data.dir)["train"], cls.config.data.max_side)
        teachers = [Teacher(t) for t in cls.config.teacher]
        trainer = Trainer(cls.config, photos, teachers, Path(folder.name) / "run")
        cls.lines = trainer.train()
        cls.manifest = export.bundle(trainer, photos, photos[:1], out)
        cls.codec, cls.photo = trainer.averaged(), data.pixels(photos[0])[:, :61, :90]
        cls.out, cls.photos = out, photos
        cls.script = export.load_decoder(out / "decoder.pt")
        cls.sets = wide.read_all((out / "tables.bin").read_bytes())
        cls.graph = onnx.load(str(out / "encoder.onnx"))

    def test_the_rate_goes_down(self):
        self.assertLess(self.lines[-1]["rate"], 0.95 * self.lines[0]["rate"])

    def test_each_quality_has_its_own_rate_and_its_own_answer(self):
        lengths, decoded = [], []
        for quality in (0, 1):
            symbols = export.symbols_of(self.codec, self.photo, quality)
            self.assertEqual(symbols.shape, (16, 8, 12))
            lengths.append(self.sets[quality].code_length(symbols).sum())
            with torch.no_grad():
                inputs = (torch.from_numpy(symbols[None].astype(np.float32)), torch.tensor([quality]))
                decoded.append(self.script(*inputs))
                pixels = torch.from_numpy(data.pad_to(self.photo, 8))[None]
                wanted, _ = self.codec(pixels, torch.tensor([quality]))
            torch.testing.assert_close(decoded[-1], wanted.clamp(0, 1), rtol=1e-3, atol=1e-3)
        self.assertGreater(lengths[0], 1.2 * lengths[1])
        error = [float((d[:, :, :61, :90] - torch.from_numpy(self.photo.copy())).square().mean()) for d in decoded]
        self.assertLess(error[0], error[1])

    def test_the_encoder_is_small(self):
        operators = {node.op_type for node in self.graph.graph.node} - {"Constant"}
        self.assertEqual(operators, {"Conv", "Div", "Relu", "Add"})
        self.assertEqual(self.manifest["halo"], 1)
        self.assertEqual(len(self.manifest["qualities"]), len(self.sets))

    def test_a_residual_is_taken_into_the_convolution(self):
        with tempfile.TemporaryDirectory() as folder:
            names = ["--config", str(ROOT / "configs/smoke-light.toml"), "--data", self.config.data.dir]
            out = Path(folder) / "flat"
            manifest = fold.main([*names, "--bundle", str(self.out), "--out", str(out)])
            self.assertEqual(json.loads((out / "manifest.json").read_text()), manifest)
            graph = onnx.load(str(out / "encoder.onnx")).graph
            for name, file in manifest["files"].items():
                self.assertEqual(file, export.digest(out / name))
            for name in ("decoder.pt", "decoder.onnx", "tables.bin"):
                self.assertEqual(manifest["files"][name], self.manifest["files"][name])
            with self.assertRaisesRegex(warm.StartError, "no residual"):
                fold.main([*names, "--bundle", str(out), "--out", folder])
        self.assertEqual([node.op_type for node in graph.node], ["Conv"])
        self.assertEqual(manifest["halo"], 0)
        held = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
        gain = torch.tensor(manifest["qualities"][0]["gain"])[:, None, None]
        pixels = torch.from_numpy(data.pad_to(self.photo, 8))[None]
        with torch.no_grad():
            latent = self.codec.encoder(pixels)
            lost = [
                float(((convolved - latent) * gain).square().mean())
                for convolved in (
                    torch.nn.functional.conv2d(pixels, held["patch.weight"], held["patch.bias"], 8),
                    self.codec.encoder.patch(pixels),
                )
            ]
        self.assertLess(lost[0], 0.5 * lost[1])

    def begun(self, with_decoder=True, linear=0.0, **sizes):
        """(a light codec of other `sizes` that has begun with the bundle, crops)."""
        settings = dataclasses.replace(self.config, light=dataclasses.replace(self.config.light, **sizes))
        crops = data.Crops(self.photos, settings.data, 5, 1).make(0, 24)
        codec = nets.make(settings)
        codec.start(crops, 1, 1)
        crops = torch.from_numpy(crops)
        warm.start(codec, self.out, crops, with_decoder, linear)
        return codec.eval(), crops

    def test_a_codec_begins_with_a_bundle(self):
        light = self.config.light
        quality = torch.ones(24, dtype=torch.int64)
        for sizes in ({}, {"blocks": light.blocks + 1, "inner": light.inner + 8}):
            codec, crops = self.begun(**sizes)
            with torch.no_grad():
                got, bits = codec(crops, quality)
                wanted, _ = self.codec(crops, quality)
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)
            self.assertTrue(torch.isfinite(bits).all())

    def test_new_channels_take_up_what_the_old_ones_lose(self):
        codec, crops = self.begun(channels=self.config.light.channels + 8)
        quality = torch.zeros(24, dtype=torch.int64)
        with torch.no_grad():
            lost = [float((c(crops, quality)[0] - crops).square().mean()) for c in (codec, self.codec)]
        self.assertLess(lost[0], 0.95 * lost[1])

    def test_a_decoder_begins_as_the_best_linear_one(self):
        codec, crops = self.begun(with_decoder=False, width=self.config.light.width + 8)
        for index in (0, 1):
            symbols = [export.symbols_of(c, self.photo, index) for c in (codec, self.codec)]
            np.testing.assert_array_equal(*symbols)
            quality = torch.full((24,), index, dtype=torch.int64)
            with torch.no_grad():
                got, wanted = (c(crops, quality)[0] for c in (codec, self.codec))
                linear = codec.decoder.linear(codec.code(crops, quality)[0]) * codec.decoder.small
            torch.testing.assert_close(got, linear)
            self.assertLess(float((got - crops).square().mean()), float((wanted - crops).square().mean()))

    def test_a_decoder_begins_with_a_share_of_the_best_linear_one(self):
        (mixed, crops), (linear, _) = self.begun(linear=0.4), self.begun(with_decoder=False)
        quality = torch.ones(24, dtype=torch.int64)
        with torch.no_grad():
            got, best, wanted = (c(crops, quality)[0] for c in (mixed, linear, self.codec))
        torch.testing.assert_close(got, 0.4 * best + 0.6 * wanted, rtol=1e-3, atol=1e-3)

    def test_another_decoder_keeps_the_code(self):
        train = dataclasses.replace(self.config.train, freeze_code=0.0, steps=6)
        for wider, with_decoder in ((8, False), (0, True)):
            light = dataclasses.replace(self.config.light, width=self.config.light.width + wider)
            settings = dataclasses.replace(self.config, light=light, train=train)
            with self.subTest(with_decoder=with_decoder), tempfile.TemporaryDirectory() as folder:
                trainer = Trainer(settings, self.photos, [Teacher(t) for t in settings.teacher], Path(folder) / "run")
                trainer.start_from(self.out, with_decoder=with_decoder)
                begun = trainer.averaged()
                trainer.train()
                trained = trainer.averaged()
                manifest = export.bundle(trainer, self.photos, self.photos[:1], Path(folder) / "bundle", code=self.out)
                torch.testing.assert_close(trained.encoder.patch.weight, begun.encoder.patch.weight)
                self.assertFalse(torch.equal(trained.decoder.last.weight, begun.decoder.last.weight))
                for name in ("encoder.onnx", "tables.bin"):
                    self.assertEqual(manifest["files"][name], self.manifest["files"][name])
                for mine, theirs in zip(manifest["qualities"], self.manifest["qualities"]):
                    self.assertEqual(mine["gain"], theirs["gain"])
                    self.assertEqual(mine["report"]["estimated_bytes_224"], theirs["report"]["estimated_bytes_224"])
                    answers = [[side["report"][key] for key in ("psnr_db", "kl_nats")] for side in (mine, theirs)]
                    self.assertNotEqual(*answers)

    def test_new_channels_need_no_residual(self):
        with tempfile.TemporaryDirectory() as folder:
            names = ["--config", str(ROOT / "configs/smoke-light.toml"), "--data", self.config.data.dir]
            fold.main([*names, "--bundle", str(self.out), "--out", folder])
            sizes = dataclasses.replace(self.config.light, inner=0, channels=self.config.light.channels + 8)
            codec = nets.make(dataclasses.replace(self.config, light=sizes))
            crops = data.Crops(self.photos, self.config.data, 5, 1).make(0, 24)
            codec.start(crops, 1, 1)
            warm.start(codec, folder, torch.from_numpy(crops))
        self.assertEqual(export.symbols_of(codec.eval(), self.photo, 0).shape[0], sizes.channels)

    def test_a_bundle_of_other_sizes_is_refused(self):
        with self.assertRaisesRegex(warm.StartError, "decoder.into.weight is"):
            self.begun(width=self.config.light.width + 8)
        with self.assertRaisesRegex(warm.StartError, "log_gain is"):
            self.begun(steps=[*self.config.light.steps, 90.0])

    def test_a_cut_out_lies_on_another_photo(self):
        shape = np.zeros((200, 200, 4), np.uint8)
        shape[:, 100:] = (255, 0, 0, 255)
        ground = data.Image.new("RGB", (200, 200), (0, 0, 255))
        crops = data.Crops([data.Image.fromarray(shape), ground], self.config.data, 1, 1).make(1, 40)
        red, blue = ((crops[:, c] > 0.5).any((1, 2)) for c in (0, 2))
        self.assertTrue((red & blue).any())
        # Neither black nor transparent, at the edge neither.
        self.assertFalse((crops.max(1) < 0.3).any())


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
            path.write_text('name = "x"\nversion = "1"\n[train]\nlinear = 35\n')
            with self.assertRaisesRegex(config.ConfigError, "train.linear: 35.0 is no share"):
                config.load(path, data="d", teacher="t")


if __name__ == "__main__":
    unittest.main()
