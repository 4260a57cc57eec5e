"""The ONNX interpreter and TorchScript teachers against outputs computed by other means."""

import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sidecod_train import teacher  # noqa: E402
from sidecod_train.config import TeacherConfig  # noqa: E402
from sidecod_train.teacher import Graph, GraphError, Teacher  # noqa: E402


def save(folder, nodes, constants, output):
    """Writes a graph with input `x` and returns its path."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 9, 8])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path = Path(folder) / "graph.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), str(path))
    return path


class GraphTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        torch.manual_seed(3)

    def test_half_precision_net_with_padding_computed_in_the_graph(self):
        rng = np.random.default_rng(5)
        half = lambda *shape: rng.normal(size=shape).astype(np.float16)  # noqa: E731
        constants = {
            "w1h": half(6, 3, 3, 3), "b1h": half(6), "w2h": half(6, 1, 3, 3), "fch": half(4, 6), "fbh": half(4),
            "low": np.float32(0), "high": np.float32(6),
            "flat": np.array([1, -1]), "tail": np.array([0, 0, 0, 1, 0, 0, 0, 2]),
            "two": np.array([4, 2]), "first": np.array([-1]), "last": np.array([-(2**63) + 1]),
            "axis": np.array([0]), "step": np.array([-1]), "line": np.array([-1]),
        }
        # Pads as PyTorch's exporter writes them: pairs per axis, last axis first, turned round in the graph.
        constants["pairs"] = np.array([1, 2, 0, 1, 0, 0, 0, 0])
        nodes = [helper.make_node("Cast", [n + "h"], [n], to=1) for n in ("w1", "b1", "w2", "fc", "fb")]
        nodes += [
            helper.make_node("Reshape", ["pairs", "two"], ["p0"]),
            helper.make_node("Slice", ["p0", "first", "last", "axis", "step"], ["p1"]),
            helper.make_node("Transpose", ["p1"], ["p2"], perm=[1, 0]),
            helper.make_node("Reshape", ["p2", "line"], ["p3"]),
            helper.make_node("Pad", ["x", "p3"], ["padded"], mode="constant"),
            helper.make_node("Conv", ["padded", "w1", "b1"], ["c1"], strides=[2, 2], kernel_shape=[3, 3]),
            helper.make_node("Clip", ["c1", "low", "high"], ["r1"]),
            helper.make_node("Conv", ["r1", "w2"], ["c2"], group=6, pads=[1, 1, 1, 1]),
            helper.make_node("Add", ["c2", "r1"], ["sum"]),
            helper.make_node("GlobalAveragePool", ["sum"], ["mean"]),
            helper.make_node("Reshape", ["mean", "flat"], ["row"]),
            helper.make_node("Gemm", ["row", "fc", "fb"], ["y"], transB=1),
        ]
        graph = Graph(save(self.folder, nodes, constants, "y"))
        x = torch.randn(2, 3, 9, 8, requires_grad=True)
        y, (middle,) = graph(x, ["sum"])

        w1, b1, w2, fc, fb = (
            torch.from_numpy(constants[n + "h"].astype(np.float32)) for n in ("w1", "b1", "w2", "fc", "fb")
        )
        r1 = F.conv2d(F.pad(x, (1, 2, 0, 1)), w1, b1, stride=2).clamp(0, 6)
        wanted = F.conv2d(r1, w2, padding=1, groups=6) + r1
        torch.testing.assert_close(middle, wanted)
        torch.testing.assert_close(y, F.linear(wanted.mean((2, 3)), fc, fb))
        (slope,) = torch.autograd.grad(y.sum(), x)
        self.assertGreater(float(slope.abs().sum()), 0)
        self.assertEqual(len(graph.nodes), 8, "what depends on constants alone is computed at load")

    def test_gradient_of_strided_depthwise_convolutions(self):
        for size, kernel, strides, pads in (((9, 8), (3, 3), (2, 2), 0), ((10, 11), (5, 3), (2, 3), 1), ((7, 7), (3, 5), (3, 1), 2)):
            x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
            weight = torch.randn(3, 1, *kernel, dtype=torch.float64)
            by_torch = F.conv2d(x, weight, None, strides, pads, 1, 3)
            at = {"strides": list(strides), "pads": [pads] * 4, "group": 3}
            ours = teacher._conv(helper.make_node("Conv", ["x", "weight"], ["y"]), at, x, weight)
            up = torch.randn_like(by_torch)
            self.assertEqual(type(ours.grad_fn).__name__, "_StridedDepthwiseBackward")
            torch.testing.assert_close(ours, by_torch)
            torch.testing.assert_close(*(torch.autograd.grad(out, x, up)[0] for out in (ours, by_torch)))

    def test_unknown_operator_is_named(self):
        path = save(self.folder, [helper.make_node("Erf", ["x"], ["y"], name="odd")], {}, "y")
        with self.assertRaisesRegex(GraphError, "'odd'.*Erf"):
            Graph(path)

    def test_unknown_feature_is_named(self):
        path = save(self.folder, [helper.make_node("Relu", ["x"], ["y"])], {}, "y")
        with self.assertRaisesRegex(GraphError, "'nothing'"):
            Graph(path)(torch.zeros(1, 3, 2, 2), ["nothing"])


class Net(torch.nn.Module):
    """Logits, and a feature if it is asked for."""

    def __init__(self, tells: bool):
        super().__init__()
        self.conv, self.head, self.tells = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 5), tells

    def forward(self, x):
        seen = self.conv(x).relu()
        logits = self.head(seen.mean((2, 3)))
        return (logits, seen) if self.tells else logits


class ScriptTest(unittest.TestCase):
    def teacher(self, net, example, **more):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "teacher.pt"
            torch.jit.trace(net, example).save(str(path))
            return Teacher(TeacherConfig(model=str(path), mean=100.0, std=50.0, **more))

    def test_a_script_gives_logits_and_its_own_features(self):
        torch.manual_seed(4)
        pixels = torch.rand(2, 3, 9, 8, requires_grad=True)
        scaled = (pixels * 255 - 100) / 50
        for tells in (False, True):
            net = Net(tells)
            logits, seen = self.teacher(net, scaled.detach())(pixels)
            wanted = net(scaled)
            torch.testing.assert_close(logits, wanted[0] if tells else wanted)
            self.assertEqual(len(seen), int(tells))
            if tells:
                torch.testing.assert_close(seen[0], wanted[1])
            logits.sum().backward()
            self.assertGreater(float(pixels.grad.abs().sum()), 0)

    def test_what_a_script_cannot_do_is_said(self):
        teacher = self.teacher(Net(False), torch.rand(1, 3, 9, 8), features=["conv"])
        with self.assertRaisesRegex(GraphError, "'conv'"):
            teacher(torch.rand(1, 3, 9, 8))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "broken.pt"
            path.write_bytes(b"no archive")
            with self.assertRaisesRegex(GraphError, "not a TorchScript file"):
                Teacher(TeacherConfig(model=str(path)))


TEACHER = Path(__file__).resolve().parents[2] / "examples/model-server/model/efficientnet-lite0.onnx"


@unittest.skipUnless(TEACHER.exists(), "the model server's weights are not there")
class RealTeacherTest(unittest.TestCase):
    def test_against_onnxruntime(self):
        try:
            import onnxruntime
        except ImportError:
            self.skipTest("onnxruntime is not installed")
        x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
        session = onnxruntime.InferenceSession(str(TEACHER), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        wanted = np.concatenate([session.run(None, {name: x[i : i + 1].numpy()})[0] for i in range(2)])
        with torch.no_grad():
            got = Graph(TEACHER)(x)[0].numpy()
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3)


if __name__ == "__main__":
    unittest.main()
