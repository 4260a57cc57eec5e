"""The training loop: seeded, logged as JSON lines, resumable to the same numbers."""

import contextlib
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from . import losses, nets
from .data import Crops


def device():
    """CUDA when there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def learning_rate(config, step):
    """Linear warm-up, then half a cosine down to zero at `config.steps`."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    return config.lr * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))


class Trainer:
    """A codec in training, with everything that a checkpoint has to keep."""

    def __init__(self, config, photos, teachers, run):
        """`photos` are the training photos in memory; `teachers` are Teachers; `run` is the folder of checkpoint and log."""
        self.config, self.run, self.step = config, Path(run), 0
        self.run.mkdir(parents=True, exist_ok=True)
        self.device = device()
        torch.set_num_threads(config.train.threads)
        torch.manual_seed(config.seed)
        self.crops = Crops(photos, config.data, np.random.default_rng(config.seed))
        self.codec = nets.make(config)
        self.codec.start(self.crops.batch(config.train.start_crops), config.seed, config.train.start_tries)
        self.codec.to(self.device)
        self.weights = torch.tensor(self.codec.weights, device=self.device)
        self.teachers = [teacher.to(self.device).eval() for teacher in teachers]
        self.average = {name: value.clone() for name, value in self.codec.state_dict().items()}
        groups = [{"params": params, "factor": factor} for params, factor in self.codec.groups()]
        self.optimizer = torch.optim.Adam(groups, lr=config.train.lr, betas=tuple(config.train.betas))

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
            "torch_rng": torch.get_rng_state(),
            "crops_rng": json.dumps(self.crops.generator.bit_generator.state),
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
        torch.set_rng_state(state["torch_rng"].cpu())
        self.crops.generator.bit_generator.state = json.loads(state["crops_rng"])
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
        pixels = torch.from_numpy(self.crops.batch(config.batch)).to(self.device)
        mixed = contextlib.nullcontext()
        if config.precision == "bfloat16":
            mixed = torch.autocast(self.device.type, dtype=torch.bfloat16)
        quality = torch.randint(len(self.weights), (len(pixels),)).to(self.device)
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
        if not torch.isfinite(loss):
            raise FloatingPointError(f"step {self.step}: the loss is {float(loss)}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.step >= config.freeze_code * config.steps:
            for parameter in self.codec.coding():
                parameter.grad = None
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
        with open(self.run / "train.jsonl", "a", encoding="utf-8") as log:
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
                    sums, count = {}, 0
                if self.step % config.checkpoint_every == 0 or self.step == until:
                    self.save()
        return lines
