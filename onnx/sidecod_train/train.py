"""The training loop: seeded, logged as JSON lines, resumable to the same numbers.

Under `torchrun` each process takes batches of its own, and gradients are averaged.
"""

import contextlib
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
from .data import Crops


def place():
    """(device, index of this process, number of processes); joins the others under torchrun."""
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    if count > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if cuda else "gloo")
    if not cuda:
        return torch.device("cpu"), rank, count
    local = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(local)
    return local, rank, count


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
        if config.train.precision == "bfloat16":
            # A third faster on a CPU with avx512_bf16.
            self.codec.decoder.to(memory_format=torch.channels_last)
        self.weights = torch.tensor(self.codec.weights, device=self.device)
        self.teachers = [teacher.to(self.device).eval() for teacher in teachers]
        self.average = {name: value.clone() for name, value in self.codec.state_dict().items()}
        groups = [{"params": params, "factor": factor} for params, factor in self.codec.groups()]
        self.optimizer = torch.optim.Adam(groups, lr=config.train.lr, betas=tuple(config.train.betas))

    def start_from(self, bundle):
        """Begins with the weights of the light codec in folder `bundle`."""
        if self.config.net != "light":
            raise warm.StartError(f"{bundle}: only the light net starts from a bundle, not {self.config.net}")
        crops = torch.from_numpy(self.crops.make(0, self.config.train.start_crops))
        self.codec.cpu()
        warm.start(self.codec, bundle, crops)
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

    def one_step(self):
        """One optimiser step; returns the loss terms."""
        config = self.config.train
        self.codec.train()
        if self.step >= config.freeze_norm * config.steps:
            for module in self.codec.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate(config, self.step)
        # Everything random depends on the step and the process alone.
        number = 1 + self.step * self.processes + self.rank
        torch.manual_seed(self.config.seed * 1_000_003 + number)
        ahead = range(number + self.processes, number + 8 * self.processes, self.processes)
        pixels = torch.from_numpy(self.crops.batch(number, ahead)).to(self.device)
        mixed = contextlib.nullcontext()
        if config.precision == "bfloat16":
            mixed = torch.autocast(self.device.type, dtype=torch.bfloat16)
        quality = torch.randint(len(self.weights), (len(pixels),)).to(self.device)
        latent, bits = self.codec.code(pixels, quality)
        with mixed:
            decoded = self.codec.decode(latent, quality)
        # A CPU runs the teachers' depthwise convolutions no faster in bfloat16.
        with mixed if self.device.type == "cuda" else contextlib.nullcontext():
            loss, terms = losses.total(
                self.config.loss,
                pixels,
                decoded.float(),
                bits,
                self.weights[quality],
                self.teachers,
                nets.convolutions(self.codec),
            )
        if not torch.isfinite(loss):
            raise FloatingPointError(f"step {self.step}: the loss is {float(loss)}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.step >= config.freeze_code * config.steps:
            for parameter in self.codec.coding():
                parameter.grad = None
        if self.processes > 1:
            for parameter in self.codec.parameters():
                if parameter.grad is not None:
                    distributed.all_reduce(parameter.grad)
                    parameter.grad /= self.processes
        nn.utils.clip_grad_norm_(self.codec.parameters(), config.clip)
        self.optimizer.step()
        self.step += 1
        # The average begins short, so that it forgets the start.
        keep = min(config.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.codec.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - keep)
                else:
                    self.average[name].copy_(value)
        return {"loss": float(loss.detach()), **terms}

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
                if self.step % config.log_every == 0 or self.step == until:
                    line = {"step": self.step, "seconds": round(time.monotonic() - begun, 1)}
                    line["lr"] = learning_rate(config, self.step - 1)
                    line.update({name: round(value / count, 6) for name, value in sums.items()})
                    lines.append(line)
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                    for name, value in line.items():
                        chart(name, value, self.step)
                    sums, count = {}, 0
                if self.rank == 0 and (self.step % config.checkpoint_every == 0 or self.step == until):
                    self.save()
        return lines
