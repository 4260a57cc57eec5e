"""The typed form of a training configuration (TOML)."""

import dataclasses
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path


class ConfigError(ValueError):
    """A configuration that cannot be used; names the file and the key."""


@dataclass
class DataConfig:
    """Where crops come from. `dir` holds pictures and, optionally, `index.csv` (columns file, split)."""

    dir: str = ""
    # Longer side in pixels to which a photo is scaled down when it is loaded.
    max_side: int = 1024
    # Photos with a shorter side below this are not trained on: their crops would be enlarged ones.
    min_side: int = 0
    # Side in pixels of a training crop.
    crop: int = 128
    # Smallest side of the cut-out region, as a fraction of the photo's shorter side.
    min_fraction: float = 0.15
    # The largest.
    max_fraction: float = 1.0
    # Largest change of each colour channel's gain.
    colour: float = 0.1
    # On a GPU, in place of a cut-out region of any size: shorter sides in pixels to which each photo
    # is scaled, where it is that large; crops are cut from those as they are, in the GPU's memory.
    sides: list = field(default_factory=list)
    # Threads that make batches ahead of time; 0 makes each when it is needed.
    workers: int = 0


@dataclass
class TeacherConfig:
    """The frozen model whose answers the codec has to keep."""

    # ONNX, or TorchScript (.pt, .ts) that gives logits, or a tuple of logits and features.
    model: str = ""
    # Of its losses, beside those of other teachers.
    weight: float = 1.0
    # What the teacher expects: (255 * pixel - mean) / std.
    mean: float = 127.0
    std: float = 128.0
    # Tensor names of an ONNX graph that the feature loss compares.
    features: list = field(default_factory=list)


@dataclass
class PaperConfig:
    """The paper's net: sizes of the encoder, the quantiser and the decoder."""

    stride: int = 4
    channels: int = 5
    centers: int = 8
    up1: int = 64
    up2: int = 32
    # Max-pooling of keys and values in the first and the second self-attention.
    pool1: int = 2
    pool2: int = 4
    # Sharpness of the soft assignment, relative to the squared distance between centres.
    hardness: float = 2.0


@dataclass
class LightConfig:
    """The light net: sizes of encoder and decoder, and where the qualities start."""

    stride: int = 8
    channels: int = 48
    # Channels of the encoder's residual; 0 for none.
    inner: int = 32
    # Channels and residual blocks of the decoder at the latent's resolution, and at twice that.
    width: int = 96
    blocks: int = 5
    fine: int = 48
    fine_blocks: int = 1
    # First quantisation step of each quality in grey levels, the finest first.
    steps: list = field(default_factory=lambda: [8.0, 11.5, 16.0, 22.0, 31.0, 44.0])
    # A quality of step s weighs distortion by w = (middle_step / s) ** slope, and all its loss by
    # w ** -0.5, so that the fine ones do not drown the coarse ones.
    middle_step: float = 18.0
    slope: float = 2.0


@dataclass
class LossConfig:
    """Weights of the loss terms."""

    # Bits per pixel.
    rate: float = 0.0
    pixels: float = 10.0
    features: float = 1.0
    answer: float = 1.0
    temperature: float = 2.0
    orthogonality: float = 1e-4


@dataclass
class TrainConfig:
    """The optimiser and its schedule."""

    steps: int = 1000
    batch: int = 8
    lr: float = 1e-4
    betas: list = field(default_factory=lambda: [0.0, 0.9])
    warmup: int = 50
    # Crops from which the starting values are computed, and rotations of the encoder that are tried.
    start_crops: int = 256
    start_tries: int = 400
    # Begun with a bundle's decoder (`--from`): the share of it that is replaced by the linear one that
    # restores those crops best. It loses fewer pixels, and the answer hardly changes.
    linear: float = 0.0
    clip: float = 1.0
    # From this fraction of the steps on, batch statistics are frozen.
    freeze_norm: float = 0.8
    checkpoint_every: int = 200
    log_every: int = 10
    threads: int = 2
    # "float32" or "bfloat16" (decoder only; on a GPU teachers too).
    precision: str = "float32"
    # Weights are averaged over about 1 / (1 - average) steps for the bundle; 0 takes the last ones.
    average: float = 0.0
    # From this fraction of the steps on only the decoder is trained, on the symbols as they will be.
    freeze_code: float = 1.0


@dataclass
class TablesConfig:
    """What the entropy tables are counted on."""

    bins: int = 16
    # Shorter sides in pixels to which training photos are scaled; 0 keeps the loaded size.
    sides: list = field(default_factory=lambda: [0, 256, 400])
    # At most this many photos of each side.
    photos: int = 200
    # Places on which the contexts are chosen; of the light net, steps in which each quality's is fitted.
    sample: int = 150000
    steps: int = 500


@dataclass
class BundleConfig:
    """What stands in the manifest beside measured figures."""

    tile: int = 32
    overlap: int = 4
    trained_on: str = ""
    license: str = ""


@dataclass
class Config:
    """One training configuration."""

    name: str
    version: str
    # "paper" or "light".
    net: str = "paper"
    seed: int = 1
    data: DataConfig = field(default_factory=DataConfig)
    # One table, or several with [[teacher]].
    teacher: list = field(default_factory=list)
    paper: PaperConfig = field(default_factory=PaperConfig)
    light: LightConfig = field(default_factory=LightConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    tables: TablesConfig = field(default_factory=TablesConfig)
    bundle: BundleConfig = field(default_factory=BundleConfig)

    def as_json(self):
        """The configuration as one line of JSON, for logs and checkpoints; of paths only the last name."""
        values = dataclasses.asdict(self)
        values["data"]["dir"] = Path(self.data.dir).name
        for teacher in values["teacher"]:
            teacher["model"] = Path(teacher["model"]).name
        return json.dumps(values, sort_keys=True)


def _fill(cls, values, where):
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected a table")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    out = {}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(f"{where}.{key}: unknown key; known: {', '.join(fields)}")
        kind = fields[key].type
        if dataclasses.is_dataclass(kind):
            value = _fill(kind, value, f"{where}.{key}")
        elif kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigError(f"{where}.{key}: expected {kind.__name__}, got {value!r}")
        out[key] = value
    missing = [
        name
        for name, f in fields.items()
        if name not in out
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: missing {', '.join(missing)}")
    return cls(**out)


def load(path, data=None, teacher=None):
    """Reads `path`. Paths inside it are relative to its folder; `data` and `teacher` override them."""
    path = Path(path)
    with open(path, "rb") as file:
        try:
            values = tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: {error}") from error
    teachers = values.get("teacher", [])
    if isinstance(teachers, dict):
        teachers = values["teacher"] = [teachers]
    config = _fill(Config, values, str(path))
    config.teacher = [_fill(TeacherConfig, t, f"{path}.teacher[{i}]") for i, t in enumerate(teachers)]
    base = path.resolve().parent
    if data:
        config.data.dir = str(Path(data).resolve())
    elif config.data.dir:
        config.data.dir = str(base / config.data.dir)
    else:
        raise ConfigError(f"{path}: no data folder: give --data or data.dir")
    if teacher:
        config.teacher = config.teacher or [TeacherConfig()]
        config.teacher[0].model = str(Path(teacher).resolve())
    for index, each in enumerate(config.teacher):
        if not each.model:
            raise ConfigError(f"{path}: teacher[{index}].model is missing: give it, or --teacher for the first")
        each.model = str(base / each.model)
    if not config.teacher:
        raise ConfigError(f"{path}: no teacher: give --teacher or teacher.model")
    if config.net not in ("paper", "light"):
        raise ConfigError(f"{path}: net: {config.net!r} is not known; known: paper, light")
    stride = getattr(config, config.net).stride
    if config.data.crop % stride:
        raise ConfigError(f"{path}: data.crop must be a multiple of {stride}")
    if config.paper.stride != 4:
        raise ConfigError(f"{path}: paper.stride: two up-blocks give 4, not {config.paper.stride}")
    if config.train.precision not in ("float32", "bfloat16"):
        raise ConfigError(f"{path}: train.precision: {config.train.precision!r} is not known")
    if not 0 <= config.train.linear <= 1:
        raise ConfigError(f"{path}: train.linear: {config.train.linear} is no share, 0 to 1")
    return config
