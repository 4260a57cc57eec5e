"""Trains the codec of a feature under the model's own answer; no labels are needed."""

import copy
import json
import math

import numpy as np
import torch
from tqdm import tqdm

from .. import data
from ..config import DataConfig
from ..losses import answer, pixels
from .net import Codec, Training

# Weights of the losses: the answer's divergence, the feature's own error, and that of the layers after
# it. The answer alone is soon learned by heart where photos are few; features are not.
ANSWER, FEATURE, LATER = 0.5, 0.5, 2.0
# How the price of a bit follows the size that is asked for: at once, with this power of what is too
# much, and slowly, by this much a step.
AT_ONCE, SLOWLY = 1.5, 0.004


class Pool:
    """Random crops of the training photos, seen by the model once: its features and answers, in memory."""

    def __init__(self, model, config, tensors, photos, count, seed):
        """`tensors` are kept for each of `count` crops, as half precision; `config` says what the model takes."""
        side = config.side
        crops = data.Crops(photos, DataConfig(crop=side, min_fraction=0.4, colour=0.1), seed, 8)
        self.tensors, self.count = tensors, count
        self.kept = {name: np.empty((count, *model.shapes[name]), np.float16) for name in tensors}
        self.logits = np.empty((count, model.outputs), np.float32)
        with torch.no_grad():
            for at in tqdm(range(0, count, 8), desc="features", mininterval=5):
                batch = torch.from_numpy(config.scale(crops.make(1 + at // 8, min(8, count - at))))
                out, values = model.graph(batch.contiguous(memory_format=torch.channels_last), tensors)
                self.logits[at : at + len(batch)] = out.numpy()
                for name, value in zip(tensors, values):
                    self.kept[name][at : at + len(batch)] = value.numpy()
        # What goes past this range in one crop of many is no reason to lose all of them.
        for name, value in self.kept.items():
            np.clip(value, -60000, 60000, out=value)

    def take(self, name, index):
        """float32 values of a tensor for some crops."""
        return torch.from_numpy(self.kept[name][index].astype(np.float32))


def train(pool, tail, tensor, codec, targets, steps, batch, lr, seed, log):
    """Trains `codec` on `pool`; quality i is driven to about targets[i] bytes. Returns it with averaged weights."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    spread = codec.start(pool.take(tensor, np.arange(min(256, pool.count))), targets)
    net = Training(codec, spread)
    average = copy.deepcopy(codec)
    optimizer = torch.optim.Adam(net.groups(lr), betas=(0.9, 0.99))
    later = [name for name in pool.tensors if name != tensor and name in tail.graph.dynamic]
    sizes = {name: float(pool.take(name, np.arange(min(64, pool.count))).var()) for name in (tensor, *later)}
    wanted = np.array([8.0 * target for target in targets])
    # At a divergence of 0.1 nats that falls with the power 1.5 of the size.
    price, seen, sums, lines = 0.15 / wanted, wanted.copy(), {}, []
    for step in tqdm(range(steps), mininterval=5):
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / 30)
            group["lr"] = lr * group["factor"] * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
        index = rng.integers(pool.count, size=batch)
        quality = torch.from_numpy(rng.integers(len(targets), size=batch))
        feature = pool.take(tensor, index).contiguous(memory_format=torch.channels_last)
        decoded, bits, rounded = net(feature, quality)
        logits, features = tail.graph(decoded, later)
        terms = {
            "feature": pixels(decoded, feature) / sizes[tensor],
            "answer": answer(logits, torch.from_numpy(pool.logits[index]), 1.0),
            "later": torch.zeros(batch),
        }
        for name, value in zip(later, features):
            terms["later"] = terms["later"] + pixels(value, pool.take(name, index)) / sizes[name] / len(later)
        now = price * np.clip(seen / wanted, 0.3, 3) ** AT_ONCE
        cost = torch.from_numpy(now.astype(np.float32))[quality] * bits
        loss = (ANSWER * terms["answer"] + FEATURE * terms["feature"] + LATER * terms["later"] + cost).mean()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{tensor}: step {step}: the loss is {float(loss)}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        for one, size in zip(quality.tolist(), rounded.tolist()):
            seen[one] += 0.1 * (size - seen[one])
        price *= np.exp(SLOWLY * np.clip(np.log(seen / wanted), -1, 1))
        keep = min(0.99, (1 + step) / (10 + step))
        with torch.no_grad():
            for mine, theirs in zip(average.state_dict().values(), codec.state_dict().values()):
                mine.lerp_(theirs, 1 - keep)
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach().mean())
        if (step + 1) % 50 == 0 or step + 1 == steps:
            count = 50 if (step + 1) % 50 == 0 else (step + 1) % 50
            line = {"step": step + 1, "bytes": [round(x / 8, 1) for x in seen]}
            line.update({name: round(value / count, 4) for name, value in sums.items()})
            lines.append(line)
            log.write(json.dumps(line) + "\n")
            log.flush()
            sums = {}
    return average.settle()


__all__ = ["Codec", "Pool", "train"]
