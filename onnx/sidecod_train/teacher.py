"""The frozen model whose answers a codec keeps: a TorchScript file, or an ONNX net run as differentiable torch operations.

Of ONNX only the operators that such graphs use are known; any other is an error that names it. Weights
may be half precision followed by a Cast: everything that depends on constants alone is computed
once, when the graph is loaded.
"""

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import nn


class GraphError(ValueError):
    """A graph that this interpreter cannot run; names the node and the operator."""


_TYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    # Computation is in float32 throughout: half precision is for storage only.
    onnx.TensorProto.FLOAT16: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.BOOL: torch.bool,
}


def _tensor(proto):
    array = numpy_helper.to_array(proto)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    return torch.from_numpy(np.array(array))


def _ints(tensor):
    return [int(v) for v in tensor.reshape(-1).tolist()]


def _symmetric(pads, name):
    half = len(pads) // 2
    if list(pads[:half]) != list(pads[half:]):
        raise GraphError(f"{name}: uneven padding {list(pads)} inside the operator")
    return list(pads[:half])


def _conv(node, at, x, weight, bias=None):
    if at.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise GraphError(f"{node.name}: auto_pad {at['auto_pad']!r}")
    pads = _symmetric(at.get("pads", [0, 0, 0, 0]), node.name)
    strides, dilations, group = at.get("strides", [1, 1]), at.get("dilations", [1, 1]), at.get("group", 1)
    wanted = x.requires_grad and x.device.type == "cpu"
    if wanted and max(strides) > 1 and max(dilations) == 1 and group == x.shape[1] == len(weight):
        return _StridedDepthwise.apply(x, weight, bias, strides, pads)
    return F.conv2d(x, weight, bias, strides, pads, dilations, group)


class _StridedDepthwise(torch.autograd.Function):
    """A depthwise convolution with a stride, whose gradient of the input is a convolution as well.

    A CPU's own gradient of these four or five layers takes as long as all else of the net.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, strides, pads):
        ctx.save_for_backward(weight)
        ctx.strides, ctx.pads, ctx.sizes = strides, pads, x.shape[2:]
        return F.conv2d(x, weight, bias, strides, pads, 1, x.shape[1])

    @staticmethod
    def backward(ctx, gradient):
        (weight,) = ctx.saved_tensors
        n, channels, *_ = gradient.shape
        # Zeros between, and around as far as the kernel reaches.
        reach = [k - 1 for k in weight.shape[2:]]
        sizes = [size + r for size, r in zip(ctx.sizes, reach)]
        order = {"dtype": gradient.dtype, "memory_format": torch.channels_last}
        wide = torch.empty((n, channels, *sizes), **order).zero_()
        (y, x), (down, right) = ((r - p for r, p in zip(reach, ctx.pads))), ctx.strides
        height, width = gradient.shape[2:]
        wide[:, :, y : y + height * down : down, x : x + width * right : right] = gradient
        return F.conv2d(wide, weight.flip(2, 3), None, 1, 0, 1, channels), None, None, None, None


def _clip(node, at, x, low=None, high=None):
    low = at.get("min", None) if low is None else float(low)
    high = at.get("max", None) if high is None else float(high)
    if low is not None and high is not None:
        # Its gradient is one operation, where that of `clamp` is four.
        return F.hardtanh(x, low, high)
    return torch.clamp(x, low, high)


def _pad(node, at, x, pads, value=None):
    if at.get("mode", b"constant") != b"constant":
        raise GraphError(f"{node.name}: Pad mode {at['mode']!r}")
    pads = _ints(pads)
    rank = len(pads) // 2
    order = []
    for axis in reversed(range(rank)):
        order += [pads[axis], pads[rank + axis]]
    return F.pad(x, order, value=0.0 if value is None else float(value))


def _reshape(node, at, x, shape):
    shape = _ints(shape)
    shape = [x.shape[i] if s == 0 else s for i, s in enumerate(shape)]
    # A graph exported for one picture writes its batch of 1 into the shape.
    if len(shape) > 1 and shape[0] == 1 and -1 in shape and x.dim() == 4:
        shape = [x.shape[0]] + [-1 if s == -1 else s for s in shape[1:]]
    return x.reshape(shape)


def _slice(node, at, x, starts, ends, axes=None, steps=None):
    starts, ends = _ints(starts), _ints(ends)
    axes = _ints(axes) if axes is not None else list(range(len(starts)))
    steps = _ints(steps) if steps is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps):
        # ONNX clamps starts and ends as Python's own slices do.
        index = torch.tensor(range(x.shape[axis])[start:end:step], dtype=torch.int64, device=x.device)
        x = x.index_select(axis, index)
    return x


def _gemm(node, at, a, b, c=None):
    a = a.t() if at.get("transA", 0) else a
    b = b.t() if at.get("transB", 0) else b
    out = at.get("alpha", 1.0) * (a @ b)
    return out if c is None else out + at.get("beta", 1.0) * c


def _max_pool(node, at, x):
    pads = _symmetric(at.get("pads", [0, 0, 0, 0]), node.name)
    return F.max_pool2d(x, at["kernel_shape"], at.get("strides", [1, 1]), pads, ceil_mode=bool(at.get("ceil_mode", 0)))


def _constant_of_shape(node, at, shape):
    value = at.get("value")
    value = torch.zeros(1) if value is None else _tensor(value)
    return value.reshape(-1)[0].expand(_ints(shape)).clone()


def _batch_norm(node, at, x, scale, bias, mean, var):
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, at.get("epsilon", 1e-5))


_OPS = {
    "Add": lambda node, at, a, b: a + b,
    "BatchNormalization": _batch_norm,
    "Cast": lambda node, at, x: x.to(_TYPES[at["to"]]),
    "Clip": _clip,
    "Concat": lambda node, at, *xs: torch.cat(xs, at["axis"]),
    "Constant": lambda node, at: _tensor(at["value"]),
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "Flatten": lambda node, at, x: x.flatten(at.get("axis", 1)),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, at, x: x.mean((2, 3), keepdim=True),
    "Identity": lambda node, at, x: x,
    "MatMul": lambda node, at, a, b: a @ b,
    "MaxPool": _max_pool,
    "Mul": lambda node, at, a, b: a * b,
    "Pad": _pad,
    "Relu": lambda node, at, x: F.relu(x),
    "Reshape": _reshape,
    "Sigmoid": lambda node, at, x: torch.sigmoid(x),
    "Slice": _slice,
    "Transpose": lambda node, at, x: x.permute(*at["perm"]),
}


class Graph(nn.Module):
    """An ONNX graph with one input and one output, frozen but differentiable in its input."""

    def __init__(self, path):
        """Loads `path` and computes everything that does not depend on the input."""
        super().__init__()
        graph = onnx.load(str(path)).graph
        values = {t.name: _tensor(t) for t in graph.initializer}
        inputs = [i.name for i in graph.input if i.name not in values]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise GraphError(f"{path}: expected one input and one output")
        self.input, self.output = inputs[0], graph.output[0].name
        self.nodes = []
        for node in graph.node:
            if node.op_type not in _OPS:
                raise GraphError(f"{path}: node {node.name!r}: operator {node.op_type} is not known")
            at = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if all(name == "" or name in values for name in node.input):
                args = [values[name] if name else None for name in node.input]
                values[node.output[0]] = _OPS[node.op_type](node, at, *args)
            else:
                self.nodes.append((node, at))
        self.dynamic = {self.input} | {node.output[0] for node, _ in self.nodes}
        used = {name for node, _ in self.nodes for name in node.input}
        # Weights follow the module to another device; sizes and bounds are read by Python and stay.
        self.plain, self.weights = {}, {}
        for name in sorted(used & set(values)):
            value = values[name]
            if value.dim() > 0 and value.is_floating_point():
                self.weights[name] = f"weight{len(self.weights)}"
                self.register_buffer(self.weights[name], value)
            else:
                self.plain[name] = value

    def forward(self, x, features=()):
        """Returns (output, [the tensors named in `features`])."""
        for name in features:
            if name not in self.dynamic:
                raise GraphError(f"no tensor is called {name!r}")
        values = {self.input: x, "": None, **self.plain}
        for name, buffer in self.weights.items():
            values[name] = getattr(self, buffer)
        for node, at in self.nodes:
            values[node.output[0]] = _OPS[node.op_type](node, at, *[values[n] for n in node.input])
        return values[self.output], [values[name] for name in features]


class Script(nn.Module):
    """A TorchScript module: pixels in, logits out, or a tuple of logits and the tensors that the feature loss compares."""

    def __init__(self, path):
        """Loads `path`; nothing in it is trained."""
        super().__init__()
        try:
            self.module = torch.jit.load(str(path), map_location="cpu").eval()
        except RuntimeError as error:
            raise GraphError(f"{path}: not a TorchScript file: {str(error).splitlines()[0]}") from error
        for parameter in self.module.parameters():
            parameter.requires_grad_(False)

    def forward(self, x, features=()):
        """Returns (logits, [features]): names mean nothing to a script, it gives what it gives."""
        if features:
            raise GraphError(f"a TorchScript teacher returns its features itself: take {features[0]!r} out of `features`")
        out = self.module(x)
        return (out, []) if isinstance(out, torch.Tensor) else (out[0], list(out[1:]))


class Teacher(nn.Module):
    """The model behind its own input scaling, taking pixels in 0..1. A name that ends in .pt or .ts is TorchScript's."""

    def __init__(self, config):
        """`config` is a TeacherConfig."""
        super().__init__()
        self.graph = (Script if str(config.model).endswith((".pt", ".ts")) else Graph)(config.model)
        self.mean, self.std, self.weight = config.mean, config.std, config.weight
        self.features = list(config.features)
        # Of the precision and the memory format that the weights are in, whatever they are moved to.
        self.register_buffer("like", torch.zeros(1, 1, 1, 1), persistent=False)

    def forward(self, pixels):
        """pixels [N, 3, H, W] in 0..1 -> (logits [N, classes], features)."""
        logits, features = self.graph(((pixels * 255.0 - self.mean) / self.std).to(self.like.dtype), self.features)
        return logits.float(), features
