"""Cutting a model in two and coding the feature between, on a small net and the photos of the repository."""

import hashlib
import json
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sidecod_train import __main__ as command  # noqa: E402
from sidecod_train import wide  # noqa: E402
from sidecod_train.config import ConfigError  # noqa: E402
from sidecod_train.points import cut, export, interface, net, train  # noqa: E402

SIDE = 32


def small_model(path):
    """Two strided convolutions with a residual after each, a mean, and four outputs."""
    rng = np.random.default_rng(3)
    sizes = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (16, 8, 3, 3), "w4": (16, 16, 1, 1), "fc": (4, 16)}
    constants = {n: (rng.normal(size=s) / np.prod(s[1:]) ** 0.5).astype(np.float16) for n, s in sizes.items()}
    nodes = [helper.make_node("Cast", [n], [n + "f"], name=n + "/Cast", to=1) for n in constants]
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes += [
        helper.make_node("Conv", ["x", "w1f"], ["a"], name="/stem/Conv", strides=[2, 2], **conv),
        helper.make_node("Conv", ["a", "w2f"], ["b"], name="/one/Conv", **conv),
        helper.make_node("Add", ["a", "b"], ["c"], name="/one/Add"),
        helper.make_node("Conv", ["c", "w3f"], ["d"], name="/two/Conv", strides=[2, 2], **conv),
        helper.make_node("Conv", ["d", "w4f"], ["e"], name="/three/Conv", kernel_shape=[1, 1]),
        helper.make_node("Add", ["d", "e"], ["f"], name="/three/Add"),
        helper.make_node("GlobalAveragePool", ["f"], ["g"], name="/pool"),
        helper.make_node("Flatten", ["g"], ["h"], name="/flat"),
        helper.make_node("Gemm", ["h", "fcf"], ["y"], name="/fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), str(path))


def write_interface(folder):
    (folder / "labels.txt").write_text("a\nb\nc\nd\n")
    path = folder / "interface.toml"
    path.write_text(
        f'[input]\nshort_side = {SIDE + 4}\nmean = 127\nstd = [128, 128, 64]\n'
        '[answer]\nvalues = "softmax"\ntop = 2\nlabels = "labels.txt"\nbody = "[$top]"\nitem = "$label"\n'
    )
    return path


class PointsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        cls.model_file, cls.points, cls.out = (cls.folder / n for n in ("small.onnx", "points", "out"))
        small_model(cls.model_file)
        cls.model = cut.Model(cls.model_file)
        cls.common = ["split", "--model", str(cls.model_file), "--interface", str(write_interface(cls.folder))]
        cls.common += ["--points", str(cls.points), "--out", str(cls.out)]
        cls.manifests = command.main(
            [*cls.common, "--at", "/one/Add,f", "--names", "first,second", "--data", str(ROOT.parent / "examples/photos"),
             "--bytes", "120,70/90", "--channels", "6", "--side", "1,4", "--waves", "5", "--steps", "60", "--crops", "48",
             "--keep", "d", "--threads", "1"]
        )

    def test_places_are_those_that_nothing_goes_past(self):
        shapes = {"a": (8, 16, 16), "c": (8, 16, 16), "d": (16, 8, 8), "f": (16, 8, 8), "g": (16, 1, 1)}
        self.assertEqual(self.model.places(), shapes)
        self.assertEqual(self.model.tensor("/one/Add"), "c")
        for name, says in (("b", "goes past it"), ("/onn", "no tensor or layer .*--list"), ("y", "only feature maps")):
            with self.assertRaisesRegex(cut.CutError, says):
                self.model.tensor(name)

    def test_head_and_tail_are_the_model(self):
        x = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            wanted = self.model.graph(x)[0]
            for tensor, name in (("c", "first"), ("f", "second")):
                feature = cut.Part(self.model.part(tensor, True))(x)
                torch.testing.assert_close(cut.Part(self.model.part(tensor, False))(feature), wanted)
                tail = torch.jit.load(str(self.out / name / "tail.pt"))
                torch.testing.assert_close(tail(feature), wanted, rtol=1e-4, atol=1e-5)
                for file in ("head.onnx", "tail.onnx"):
                    onnx.checker.check_model(str(self.out / name / file))

    def test_torchscript_is_cut_as_well(self):
        net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(4, 6, 3, 2, 1), torch.nn.Flatten(), torch.nn.Linear(96, 2)
        ).eval()
        path = self.folder / "net.pt"
        torch.jit.trace(net, torch.zeros(1, 3, 16, 16)).save(str(path))
        with self.assertRaisesRegex(cut.CutError, "give --input"):
            cut.Model(path)
        model = cut.Model(path, (3, 16, 16))
        tensor = [name for name, shape in model.places().items() if shape == (4, 8, 8)][-1]
        x = torch.randn(1, 3, 16, 16)
        with torch.no_grad():
            feature = cut.Part(model.part(tensor, True))(x)
            torch.testing.assert_close(cut.Part(model.part(tensor, False))(feature), net(x), rtol=1e-4, atol=1e-5)

    def test_codes_have_about_the_size_asked_for(self):
        for name, sizes in (("first", [120, 70]), ("second", [90])):
            found = [quality["report"]["estimated_bytes"] for quality in self.manifests[name]["qualities"]]
            for size, one in zip(sizes, found):
                self.assertTrue(0.4 * size < one < 2 * size, f"{name}: {found}, asked for {sizes}")
            self.assertEqual(found, sorted(found, reverse=True))

    def test_the_best_step_is_found_on_photos_set_aside(self):
        lines = [json.loads(line) for line in (self.points / "first" / export.LOG).read_text().splitlines()]
        self.assertEqual([line["step"] for line in lines], list(range(10, 61, 10)))
        self.assertLess(min(line["aside"]["score"] for line in lines), 2 * lines[-1]["aside"]["score"])

    def test_training_again_gives_the_same(self):
        made = []
        for name in ("once", "again"):
            folder = self.folder / name
            command.main(
                [*self.common[: self.common.index("--points")], "--points", str(folder), "--at", "f", "--names", "second",
                 "--data", str(ROOT.parent / "examples/photos"), "--bytes", "90", "--channels", "6", "--side", "4",
                 "--steps", "12", "--crops", "16", "--threads", "1"]
            )
            made.append({file: (folder / "second" / file).read_bytes() for file in (export.TABLES, export.RECIPE, export.LOG)})
        self.assertEqual(*made)

    def test_cosines_are_orthonormal(self):
        waves = net.cosines(7, 49).reshape(49, -1)
        np.testing.assert_allclose(waves @ waves.T, np.eye(49), atol=1e-12)
        self.assertAlmostEqual(net.cosines(7, 1)[0, 3, 2], 1 / 7)

    def test_a_start_with_all_components_is_the_identity(self):
        features = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(3)) + 0.5
        slopes = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(4))
        for stride, channels, side, waves in ((2, 12, 1, 1), (1, 3, 4, 16)):
            with self.subTest(stride=stride, side=side):
                codec = net.Codec((3, 8, 8), stride, channels, side=side, waves=waves, qualities=1)
                codec.start(features, slopes, [200])
                with torch.no_grad():
                    decoded = codec.decoder.rebuild(codec.encoder(features), torch.zeros(40, dtype=torch.int64))
                torch.testing.assert_close(decoded, features, rtol=0.1, atol=0.1)
                self.assertEqual(codec.latent, (8 // stride // side,) * 2)

    def test_slopes_tell_what_a_small_error_costs(self):
        class Pool:
            tensors, count = ["c", "f"], 4

            def __init__(self, model):
                x = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
                with torch.no_grad():
                    self.kept = dict(zip(self.tensors, model.graph(x, self.tensors)[1]))

            def take(self, name, index):
                return self.kept[name][index].clone()

        pool = Pool(self.model)
        loss = train.Loss(pool, cut.Part(self.model.part("c", False)), "c")
        change = 1e-2 * torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(6))
        slopes = loss.slopes(np.zeros(4000, dtype=np.int64), np.random.default_rng(7))
        guessed = float((slopes * change).sum((1, 2, 3)).square().mean())
        feature = pool.take("c", np.zeros(1, dtype=np.int64))
        with torch.no_grad():
            terms = loss.terms(feature, loss.target(feature), feature + change)
        real = float(train.ANSWER * terms["answer"] + train.FEATURE * terms["feature"] + train.LATER * terms["later"])
        self.assertTrue(0.85 * real < guessed < 1.15 * real, f"{guessed}, real {real}")

    def test_features_are_varied_by_sides_of_others_and_gains(self):
        ones, twos = torch.ones(200, 3, 4, 6), torch.full((200, 3, 4, 6), 2.0)
        varied = train.vary(ones, twos, np.random.default_rng(8))
        again = train.vary(ones, twos, np.random.default_rng(8))
        self.assertTrue(torch.equal(varied, again))
        self.assertTrue(torch.equal(ones, torch.ones(200, 3, 4, 6)))
        plain = sum(torch.equal(a, b) for a, b in zip(varied, ones))
        self.assertTrue(20 < plain < 90, plain)
        self.assertGreater(float(varied[:, :, -1, -1].mean()), float(varied[:, :, 0, 0].mean()) + 0.2)

    def test_bundles_are_complete(self):
        for name, manifest in self.manifests.items():
            written = json.loads((self.out / name / "manifest.json").read_text())
            self.assertEqual(written, manifest)
            for file, entry in written["files"].items():
                content = (self.out / name / file).read_bytes()
                self.assertEqual(entry, {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)})
        point = self.manifests["first"]["point"]
        self.assertEqual((point["feature"], point["outputs"], point["tensor"]), ([8, 16, 16], 4, "c"))
        self.assertEqual(point["input"], {"side": SIDE, "short_side": SIDE + 4, "mean": [127.0] * 3, "std": [128.0, 128.0, 64.0]})
        self.assertEqual(self.manifests["local"]["outputs"], 4)
        self.assertNotIn("labels", point["answer"])

    def test_exported_codec_is_the_trained_one(self):
        recipe = json.loads((self.points / "first" / export.RECIPE).read_text())
        codec = export.load(self.points / "first", recipe["codec"])
        feature = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(2))
        symbols = codec.symbols(feature, 1)
        quality, number = torch.tensor([1]), torch.from_numpy(symbols.astype(np.float32))
        decoder = torch.jit.load(str(self.out / "first" / "decoder.pt"))
        with torch.no_grad():
            torch.testing.assert_close(decoder(number, quality), codec.decoder(number, quality))
            recipe = json.loads((self.points / "second" / export.RECIPE).read_text())
            other = export.load(self.points / "second", recipe["codec"])
            number = torch.randn(1, 30, 2, 2).round()
            decoder = torch.jit.load(str(self.out / "second" / "decoder.pt"))
            torch.testing.assert_close(decoder(number, quality * 0), other.decoder(number, quality * 0))
        with self.subTest("the tables code them"):
            sets = wide.read_all((self.out / "first" / "tables.bin").read_bytes())
            self.assertEqual(len(sets), 2)
            self.assertGreater(sets[1].code_length(symbols[0]).sum(), 0)
        gains = self.manifests["first"]["qualities"][1]["gain"]
        np.testing.assert_allclose(gains, codec.log_gain[1].exp().numpy(), rtol=1e-6)

    def test_a_recipe_belongs_to_its_model(self):
        other = self.folder / "other.onnx"
        proto = onnx.load(str(self.model_file))
        proto.doc_string = "changed"
        onnx.save(proto, str(other))
        around = interface.load(self.folder / "interface.toml", self.model.shape)
        with self.assertRaisesRegex(cut.CutError, "made for another model: small.onnx"):
            export.build(cut.Model(other), around, self.points / "first", self.folder / "wrong")

    def test_wrong_arguments_are_named(self):
        for extra, says in (
            (["--at", "c"], "--data"),
            (["--at", "c", "--data", "x", "--bytes", "90", "--stride", "1,2"], "--stride: 2 given, 1 points"),
        ):
            with self.assertRaisesRegex(ConfigError, says):
                command.main([*self.common, *extra])


if __name__ == "__main__":
    unittest.main()
