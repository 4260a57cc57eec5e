"""Cuts an ONNX model at a tensor: the head for the device, the tail for the edge."""

import hashlib
import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from onnx import helper
from torch import nn

from ..teacher import Graph, GraphError

OPSET = 13


class CutError(ValueError):
    """A model that cannot be cut there; names the tensor and the reason."""


class Model:
    """An ONNX model of one input [1, 3, H, W] and one output, and the tensors at which it can be cut."""

    def __init__(self, path, shape=None):
        """`path` is ONNX, or TorchScript (`.pt`) that takes an input of `shape` (C, H, W)."""
        self.path = Path(path)
        if self.path.suffix in (".pt", ".pth"):
            if shape is None:
                raise CutError(f"{path}: a TorchScript file does not tell the shape of its input: give --input")
            self.proto = _from_torch(self.path, shape)
        else:
            self.proto = onnx.load(str(path))
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "model.onnx"
            onnx.save(self.proto, str(plain))
            self.graph = Graph(plain).eval()
        self.shape = tuple(shape) if shape else self._declared()
        with torch.no_grad():
            names = [node.output[0] for node, _ in self.graph.nodes]
            output, values = self.graph(torch.zeros(1, *self.shape), names)
        self.outputs = output.shape[-1]
        # Layers are known by their own name as well as by that of their output.
        self.layers = {node.name: node.output[0] for node, _ in self.graph.nodes if node.name}
        self.shapes = {name: tuple(value.shape[1:]) for name, value in zip(names, values)}

    def _declared(self):
        (proto,) = [i for i in self.proto.graph.input if i.name == self.graph.input]
        sides = [d.dim_value for d in proto.type.tensor_type.shape.dim]
        if len(sides) != 4 or sides[1] != 3 or min(sides[1:]) < 1:
            raise CutError(f"{self.path}: its input is {sides}, expected [1, 3, height, width]: give --input")
        return tuple(sides[1:])

    def digest(self):
        """{"name", "sha256", "bytes"} of the file."""
        content = self.path.read_bytes()
        return {"name": self.path.name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}

    def places(self):
        """{tensor: (C, H, W)} of every feature map through which all that follows has to go, in order."""
        last = {}
        for at, (node, _) in enumerate(self.graph.nodes):
            for name in node.input:
                last[name] = at
        out, furthest = {}, last.get(self.graph.input, 0)
        for at, (node, _) in enumerate(self.graph.nodes):
            name = node.output[0]
            if furthest <= at and len(self.shapes[name]) == 3 and name != self.graph.output:
                out[name] = self.shapes[name]
            furthest = max(furthest, last.get(name, at))
        return out

    def tensor(self, name):
        """The tensor that a user's name of a tensor or a layer means."""
        tensor, places = self.layers.get(name, name), self.places()
        if tensor in places:
            return tensor
        if tensor not in self.shapes:
            near = [n for n in (*self.layers, *self.shapes) if name.lower() in n.lower()][:5]
            hint = f"; like it: {', '.join(near)}" if near else ""
            raise CutError(f"{self.path}: no tensor or layer is called {name!r}{hint}; --list shows the places")
        if len(self.shapes[tensor]) != 3:
            raise CutError(f"{name}: is {list(self.shapes[tensor])}, only feature maps (channels, rows, columns) are coded")
        raise CutError(f"{name}: something goes past it, so that the model does not fall in two there; --list shows the places")

    def part(self, tensor, head):
        """The ONNX model from the input to `tensor` (`head`), or from there to the output."""
        graph, size = self.proto.graph, [1, *self.shapes[tensor]]
        at = helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, size)
        given, wanted = (self.graph.input, tensor) if head else (tensor, self.graph.output)
        (own,) = [v for v in (graph.input if head else graph.output) if v.name == (given if head else wanted)]
        makes = {output: node for node in graph.node for output in node.output}
        nodes, names, open_names = set(), set(), [wanted]
        while open_names:
            name = open_names.pop()
            if name in names or name == given:
                continue
            names.add(name)
            if name in makes:
                nodes.add(id(makes[name]))
                open_names.extend(makes[name].input)
        part = helper.make_graph(
            [node for node in graph.node if id(node) in nodes],
            "head" if head else "tail",
            [own if head else at],
            [at if head else own],
            [weight for weight in graph.initializer if weight.name in names],
        )
        out = helper.make_model(part, opset_imports=self.proto.opset_import)
        out.ir_version = self.proto.ir_version
        return out


class Part(nn.Module):
    """A cut-off part as torch operations; takes a batch."""

    def __init__(self, proto):
        """`proto` is a part of a model."""
        super().__init__()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "part.onnx"
            onnx.save(proto, str(path))
            self.graph = Graph(path).eval()

    def forward(self, x):
        """The part's output."""
        return self.graph(x)[0]


def write(model, tensor, out):
    """head.onnx, tail.onnx and tail.pt of `model` cut at `tensor` into folder `out`."""
    for head in (True, False):
        name = "head.onnx" if head else "tail.onnx"
        (out / name).write_bytes(model.part(tensor, head).SerializeToString(deterministic=True))
    tail = Part(model.part(tensor, False))
    example = torch.zeros(2, *model.shapes[tensor])
    with warnings.catch_warnings(), torch.no_grad():
        # Sizes that a graph computes from its constants are constants.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(tail, example, check_trace=False)
        other = torch.randn(3, *model.shapes[tensor])
        if not torch.allclose(traced(other), tail(other), rtol=1e-3, atol=1e-3):
            raise CutError(f"{tensor}: the tail does not take a batch")
    traced.save(str(out / "tail.pt"))


def _from_torch(path, shape):
    try:
        module = torch.jit.load(str(path), map_location="cpu").eval()
    except RuntimeError as error:
        raise CutError(f"{path}: no TorchScript (torch.jit.save): {str(error).splitlines()[0]}") from error
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        arguments = {"opset_version": OPSET, "do_constant_folding": True}
        if int(torch.__version__.split(".")[0]) >= 2:
            arguments["dynamo"] = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(module, torch.zeros(1, *shape), str(file), **arguments)
        return onnx.load(str(file))


__all__ = ["CutError", "GraphError", "Model", "Part", "write"]
