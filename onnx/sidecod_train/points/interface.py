"""What stands around a model in its server: how an input is made of a photo, and an answer of its output."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import ConfigError

INPUT = {"short_side", "mean", "std"}
ANSWER = {"content_type", "values", "top", "labels", "body", "item"}


@dataclass
class Interface:
    """`input` and `answer` are what the manifests say; `labels` is the file that `answer` names, or None."""

    input: dict
    answer: dict
    labels: bytes

    @property
    def side(self):
        """Pixels of the square that the model takes."""
        return self.input["side"]

    def scale(self, pixels):
        """The model's input for float32 `pixels` [N, 3, H, W] in 0..1."""
        mean, std = (np.array(self.input[key], np.float32).reshape(3, 1, 1) for key in ("mean", "std"))
        return ((pixels * 255 - mean) / std).astype(np.float32)


def load(path, shape):
    """Reads an interface file (TOML) for a model whose input is `shape` (C, H, W)."""
    path = Path(path)
    with open(path, "rb") as file:
        try:
            values = tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: {error}") from error
    for table, keys in (("input", INPUT), ("answer", ANSWER)):
        for key in values.get(table, {}):
            if key not in keys:
                raise ConfigError(f"{path}: {table}.{key}: unknown key; known: {', '.join(sorted(keys))}")
    if shape[0] != 3 or shape[1] != shape[2]:
        raise ConfigError(f"{path}: the model's input is {list(shape)}, only squares of 3 colours are cut out of photos")
    three = lambda value: [float(v) for v in (value if isinstance(value, list) else [value] * 3)]  # noqa: E731
    given = values.get("input", {})
    inputs = {"side": shape[1], "short_side": int(given.get("short_side", shape[1]))}
    inputs.update(mean=three(given.get("mean", 0.0)), std=three(given.get("std", 1.0)))
    if inputs["short_side"] < shape[1]:
        raise ConfigError(f"{path}: input.short_side: {inputs['short_side']} is less than the model's {shape[1]}")
    answer = dict(values.get("answer", {}))
    if "body" not in answer:
        raise ConfigError(f"{path}: answer.body is missing: the text in which the app expects its answer")
    labels = answer.pop("labels", None)
    content = (path.parent / labels).read_bytes() if labels else None
    answer = {"content_type": "application/json", "values": "none", "top": 5, "item": "$value", **answer}
    return Interface(inputs, answer, content)
