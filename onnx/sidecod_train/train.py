"""The training loop: seeded, logged as JSON lines, resumable to the same numbers.

Under `torchrun` each process takes batches of its own, and gradients are averaged.
"""

import contextlib
import ctypes
import json
import math
import os
import time
from pathlib import Path

import torch
import torch.distributed as distributed
from torch import nn
from tqdm import tqdm

from . import losses, nets, warm
from .data import Crops, DeviceCrops

# Steps taken one by one before one is recorded: libraries choose their kernels, and memory is found.
UNRECORDED = 3


def place():
    """(device, index of this process, number of processes); joins the others under torchrun."""
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    if count > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if cuda else "gloo")
    if not cuda:
        _keep_memory()
        return torch.device("cpu"), rank, count
    local = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(local)
    return local, rank, count


def _keep_memory():
    """Has glibc keep what is freed: else the tensors of each step are mapped, and cleared by the kernel, anew."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        trim_threshold, mmap_max, arena_max = -1, -4, -8
        for option, value in ((trim_threshold, 2**31 - 1), (mmap_max, 0), (arena_max, 1)):
            mallopt(option, value)


def _matrix_units():
    """Whether this CPU multiplies matrices of bfloat16: without that, depthwise convolutions in it are slower."""
    path = Path("/proc/cpuinfo")
    return path.exists() and "amx_bf16" in path.read_text(encoding="utf-8")


def learning_rate(config, step):
    """Linear warm-up, then half a cosine down to zero at `config.steps`."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    return config.lr * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))


@contextlib.contextmanager
def board(run, rank):
    """A function (name, value, step) that writes for TensorBoard, or does nothing where it is not installed."""
    try:
        if rank:
            raise ImportError
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield lambda name, value, step: None
        return
    with SummaryWriter(str(run / "tensorboard")) as writer:
        yield writer.add_scalar


class Recorded:
    """A step recorded as a CUDA graph."""

    def __init__(self, frozen):
        """`frozen` says which steps are alike: what Trainer.frozen gives."""
        self.frozen, self.plain, self.graph = frozen, UNRECORDED, None

    def play(self, update, *inputs):
        """What update(*inputs) does; the tensors that it returns change at the next call."""
        if self.plain:
            self.plain -= 1
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                out = update(*inputs)
            torch.cuda.current_stream().wait_stream(side)
            return out
        if self.graph is None:
            self.inputs = [value.clone() for value in inputs]
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.outputs = update(*self.inputs)
        for mine, value in zip(self.inputs, inputs):
            mine.copy_(value)
        self.graph.replay()
        return self.outputs


class Trainer:
    """A codec in training, with everything that a checkpoint has to keep."""

    def __init__(self, config, photos, teachers, run):
        """`photos` are the training photos in memory; `teachers` are Teachers; `run` is the folder of checkpoint and log."""
        self.config, self.run, self.step = config, Path(run), 0
        self.run.mkdir(parents=True, exist_ok=True)
        self.device, self.rank, self.processes = place()
        torch.set_num_threads(config.train.threads)
        torch.manual_seed(config.seed)
        self.crops = Crops(photos, config.data, config.seed, config.train.batch)
        self.codec = nets.make(config)
        self.codec.start(self.crops.make(0, config.train.start_crops), config.seed, config.train.start_tries)
        self.codec.to(self.device)
        cuda, halved = self.device.type == "cuda", config.train.precision == "bfloat16"
        if halved:
            # A third faster on a CPU with avx512_bf16, four times with matrix units.
            self.codec.decoder.to(memory_format=torch.channels_last)
        self.weights = torch.tensor(self.codec.weights, device=self.device)
        self.teachers = [teacher.to(self.device).eval() for teacher in teachers]
        if halved and (cuda or _matrix_units()):
            for teacher in self.teachers:
                teacher.to(torch.bfloat16).to(memory_format=torch.channels_last)
        if cuda and config.data.sides:
            self.crops = DeviceCrops(photos, config.data, config.seed, config.train.batch, self.device)
        self.average = {name: value.clone() for name, value in self.codec.state_dict().items()}
        groups = [{"params": params, "factor": factor} for params, factor in self.codec.groups()]
        if cuda:
            torch.backends.cudnn.benchmark = True
            # What a recorded step shall read anew each time has to be a tensor.
            for group in groups:
                group["lr"] = torch.tensor(config.train.lr, device=self.device)
        self.optimizer = torch.optim.Adam(groups, config.train.lr, tuple(config.train.betas), capturable=cuda)
        self.recorded = None

    def start_from(self, bundle, with_decoder=True):
        """Begins with the weights of the light codec in folder `bundle`, or with those of them that make its code."""
        if self.config.net != "light":
            raise warm.StartError(f"{bundle}: only the light net starts from a bundle, not {self.config.net}")
        crops = torch.from_numpy(self.crops.make(0, self.config.train.start_crops))
        self.codec.cpu()
        warm.start(self.codec, bundle, crops, with_decoder, self.config.train.linear)
        self.codec.to(self.device)
        self.average = {name: value.clone() for name, value in self.codec.state_dict().items()}

    @property
    def checkpoint(self):
        """The checkpoint's path."""
        return self.run / "checkpoint.pt"

    def save(self):
        """Writes the checkpoint; an interrupted write leaves the old one."""
        state = {
            "config": self.config.as_json(),
            "step": self.step,
            "codec": self.codec.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.checkpoint)

    def resume(self):
        """Goes on from the checkpoint."""
        state = torch.load(self.checkpoint, map_location=self.device)
        self.codec.load_state_dict(state["codec"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        # Lines that were logged after the checkpoint are about to be logged again.
        log = self.run / "train.jsonl"
        if log.exists():
            lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
            log.write_text("".join(x for x in lines if json.loads(x).get("step", 0) <= self.step))

    def averaged(self):
        """The codec with averaged weights, frozen and plain, on the CPU."""
        out = nets.make(self.config)
        out.load_state_dict(self.average)
        return out.plain()

    def frozen(self):
        """(whether batch statistics stay, whether only the decoder is trained) at this step."""
        config = self.config.train
        return (self.step >= config.freeze_norm * config.steps, self.step >= config.freeze_code * config.steps)

    def update(self, pixels, quality):
        """Moves the weights by the gradient of a batch; returns the loss terms, tensors without gradient."""
        freeze_norm, freeze_code = self.frozen()
        self.codec.train()
        if freeze_norm:
            for module in self.codec.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        mixed = contextlib.nullcontext()
        if self.config.train.precision == "bfloat16":
            mixed = torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False)
        with torch.set_grad_enabled(not freeze_code):
            latent, bits = self.codec.code(pixels, quality)
        with mixed:
            decoded = self.codec.decode(latent, quality)
        loss, terms = losses.total(
            self.config.loss,
            pixels,
            decoded.float(),
            bits,
            self.weights[quality],
            self.teachers,
            nets.convolutions(self.codec),
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if freeze_code:
            # What orthogonality asks of its layers.
            for parameter in self.codec.coding():
                parameter.grad = None
        if self.processes > 1:
            for parameter in self.codec.parameters():
                if parameter.grad is not None:
                    distributed.all_reduce(parameter.grad)
                    parameter.grad /= self.processes
        nn.utils.clip_grad_norm_(self.codec.parameters(), self.config.train.clip)
        self.optimizer.step()
        return {"loss": loss.detach(), **terms}

    def replay(self, pixels, quality):
        """As `update`, for one GPU: after some steps one is recorded and played again, since the GPU would wait for Python."""
        if self.recorded is None or self.recorded.frozen != self.frozen():
            self.recorded = Recorded(self.frozen())
        return self.recorded.play(self.update, pixels, quality)

    def one_step(self):
        """One optimiser step; returns the loss terms."""
        for group in self.optimizer.param_groups:
            lr = group["factor"] * learning_rate(self.config.train, self.step)
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        # Everything random depends on the step and the process alone.
        number = 1 + self.step * self.processes + self.rank
        torch.manual_seed(self.config.seed * 1_000_003 + number)
        ahead = range(number + self.processes, number + 8 * self.processes, self.processes)
        pixels = torch.as_tensor(self.crops.batch(number, ahead)).to(self.device)
        quality = torch.randint(len(self.weights), (len(pixels),), device=self.device)
        alone = self.device.type == "cuda" and self.processes == 1
        terms = (self.replay if alone else self.update)(pixels, quality)
        self.step += 1
        # The average begins short, so that it forgets the start.
        keep = min(self.config.train.average, (1 + self.step) / (10 + self.step))
        state = self.codec.state_dict()
        floats = [name for name, value in state.items() if value.is_floating_point()]
        averages = [self.average[name] for name in floats]
        torch._foreach_mul_(averages, keep)
        torch._foreach_add_(averages, [state[name] for name in floats], alpha=1 - keep)
        for name in state.keys() - set(floats):
            self.average[name].copy_(state[name])
        return terms

    def train(self, until=None):
        """Trains up to step `until` (default: all of them); returns the logged lines of this call."""
        config, lines, sums, count = self.config.train, [], {}, 0
        until = config.steps if until is None else min(until, config.steps)
        begun = time.monotonic()
        # One process of several writes.
        path = self.run / "train.jsonl" if self.rank == 0 else os.devnull
        with open(path, "a", encoding="utf-8") as log, board(self.run, self.rank) as chart:
            if self.step == 0:
                log.write(json.dumps({"config": json.loads(self.config.as_json())}) + "\n")
            for _ in tqdm(range(self.step, until), initial=self.step, total=config.steps, mininterval=5):
                for name, value in self.one_step().items():
                    sums[name] = sums.get(name, 0.0) + value
                count += 1
                saves = self.step % config.checkpoint_every == 0 or self.step == until
                if saves or self.step % config.log_every == 0:
                    if not math.isfinite(sums["loss"]):
                        raise FloatingPointError(f"step {self.step}: the loss is {float(sums['loss'])}")
                    line = {"step": self.step, "seconds": round(time.monotonic() - begun, 1)}
                    line["lr"] = learning_rate(config, self.step - 1)
                    line.update({name: round(float(value) / count, 6) for name, value in sums.items()})
                    lines.append(line)
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                    for name, value in line.items():
                        chart(name, value, self.step)
                    sums, count = {}, 0
                if saves and self.rank == 0:
                    self.save()
        return lines
