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
AT_ONCE, SLOWLY = 1.5, 0.02
# Crops from which the start is computed, and the part of these whose slopes are taken.
START, SLOPES = 512, 384
# How many features are put together of two, and how much the gain of a channel varies in every second one.
SPLICED, GAIN = 0.5, 0.2
# How often a run looks at how it does on other photos.
LOOKS = 6


class Pool:
    """Random crops of photos, seen by the model once: its features, in memory."""

    def __init__(self, model, config, tensors, photos, count, seed):
        """`tensors` are kept for each of `count` crops, as half precision; `config` says what the model takes."""
        side = config.side
        crops = data.Crops(photos, DataConfig(crop=side, min_fraction=0.35, colour=0.2), seed, 8)
        self.tensors, self.count = tensors, count
        self.kept = {name: np.empty((count, *model.shapes[name]), np.float16) for name in tensors}
        with torch.no_grad():
            for at in tqdm(range(0, count, 8), desc="features", mininterval=5):
                batch = torch.from_numpy(config.scale(crops.make(1 + at // 8, min(8, count - at))))
                _, values = model.graph(batch.contiguous(memory_format=torch.channels_last), tensors)
                for name, value in zip(tensors, values):
                    self.kept[name][at : at + len(batch)] = value.numpy()
        # What goes past this range in one crop of many is no reason to lose all of them.
        for name, value in self.kept.items():
            np.clip(value, -60000, 60000, out=value)

    def take(self, name, index):
        """float32 values of a tensor for some crops."""
        return torch.from_numpy(self.kept[name][index].astype(np.float32))


class Loss:
    """What a decoded feature has lost, in the answer, in itself and in the layers after it."""

    def __init__(self, pool, tail, tensor):
        """`tail` is what follows `tensor`; `pool` tells how large its maps are."""
        self.pool, self.tail, self.tensor = pool, tail, tensor
        self.later = [name for name in pool.tensors if name != tensor and name in tail.graph.dynamic]
        some = np.arange(min(64, pool.count))
        self.sizes = {name: float(pool.take(name, some).var()) for name in (tensor, *self.later)}

    @torch.no_grad()
    def target(self, feature):
        """What the tail makes of a feature: (logits, maps of the layers after it)."""
        return self.tail.graph(feature, self.later)

    def terms(self, feature, target, decoded):
        """{name: [N]} for features of which the tail makes `target`, and that came back as `decoded`."""
        logits, maps = self.tail.graph(decoded, self.later)
        terms = {
            "feature": pixels(decoded, feature) / self.sizes[self.tensor],
            "answer": answer(logits, target[0], 1.0),
            "later": torch.zeros(len(feature)),
        }
        for name, value, wanted in zip(self.later, maps, target[1]):
            terms["later"] = terms["later"] + pixels(value, wanted) / self.sizes[name] / len(self.later)
        return terms

    def slopes(self, index, rng):
        """Random gradients [N, F, H, W] at crops of the pool; their squares are on average the loss of small errors."""
        out = []
        for at in range(0, len(index), 8):
            feature = self.pool.take(self.tensor, index[at : at + 8]).requires_grad_(True)
            logits, maps = self.tail.graph(feature, self.later)
            # The divergence of an answer is half the squared slope of the logarithm of classes drawn from it.
            chosen = torch.from_numpy(rng.random((len(logits), 1)))
            chosen = (logits.detach().double().softmax(-1).cumsum(-1) < chosen).sum(-1, keepdim=True)
            chosen = chosen.clamp(max=logits.shape[-1] - 1)
            sign = torch.from_numpy(rng.choice([-1.0, 1.0], len(logits)).astype(np.float32))
            total = (ANSWER / 2) ** 0.5 * (logits.log_softmax(-1).gather(1, chosen)[:, 0] * sign).sum()
            for name, value in zip(self.later, maps):
                noise = torch.from_numpy(rng.normal(size=value.shape).astype(np.float32))
                weight = LATER / len(self.later) / (self.sizes[name] * value[0].numel())
                total = total + weight**0.5 * (value * noise).sum()
            (slope,) = torch.autograd.grad(total, feature)
            noise = torch.from_numpy(rng.normal(size=slope.shape).astype(np.float32))
            out.append(slope + (FEATURE / (self.sizes[self.tensor] * slope[0].numel())) ** 0.5 * noise)
        return torch.cat(out)

    @torch.no_grad()
    def check(self, pool, codec, targets):
        """(score, divergence, feature error) of a codec on crops that it is not trained on; the score goes down.

        The divergence of each quality counts as if it fell with the power 1.5 of the size.
        """
        rows = [[] for _ in targets]
        for at in range(0, pool.count, 16):
            feature = pool.take(self.tensor, np.arange(at, min(pool.count, at + 16)))
            target = self.target(feature)
            for quality, row in enumerate(rows):
                number = torch.full((len(feature),), quality)
                decoded, _, bits = codec(feature.contiguous(memory_format=torch.channels_last), number)
                found = self.terms(feature, target, decoded)
                row.append(torch.stack([found["answer"], found["feature"], bits]))
        answers, errors, bits = torch.stack([torch.cat(row, 1).mean(1) for row in rows], 1).double().numpy()
        scores = answers * (bits / (8 * np.array(targets))) ** AT_ONCE
        return float(scores.mean()), float(answers.mean()), float(errors.mean())


def vary(features, others, rng):
    """Features as more photos would give them: most with a side of another one's, and with other gains of channels."""
    height, width = features.shape[2:]
    out = features.clone()
    for sample, other in zip(out, others):
        if rng.random() < SPLICED:
            if rng.random() < 0.5:
                at = int(rng.integers(height + 1))
                sample[:, at:] = other[:, at:]
            else:
                at = int(rng.integers(width + 1))
                sample[:, :, at:] = other[:, :, at:]
    gain = rng.normal(scale=GAIN, size=(*features.shape[:2], 1, 1)) * (rng.random((len(out), 1, 1, 1)) < 0.5)
    return out * torch.from_numpy(np.exp(gain).astype(np.float32))


def train(pool, aside, tail, tensor, codec, targets, steps, batch, lr, decay, seed, log):
    """Trains `codec` on `pool`; quality i is driven to about targets[i] bytes.

    Returns it with averaged weights: those of the step after which it did best on `aside`, a pool of other photos.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    loss_of = Loss(pool, tail, tensor)
    start = np.arange(min(START, pool.count))
    spread = codec.start(pool.take(tensor, start), loss_of.slopes(start[:SLOPES], rng), targets)
    net = Training(codec, spread)
    average = copy.deepcopy(net)
    optimizer = torch.optim.AdamW(net.groups(lr, decay), betas=(0.9, 0.99))
    wanted = np.array([8.0 * target for target in targets])
    # At a divergence of 0.1 nats that falls with the power 1.5 of the size.
    price, seen, sums, best = 0.15 / wanted, wanted.copy(), {}, None
    every = max(1, steps // LOOKS)
    for step in tqdm(range(steps), mininterval=5):
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / 30)
            group["lr"] = lr * group["factor"] * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
        index = rng.integers(pool.count, size=batch)
        quality = torch.from_numpy(rng.integers(len(targets), size=batch))
        feature = vary(pool.take(tensor, index), pool.take(tensor, rng.integers(pool.count, size=batch)), rng)
        feature = feature.contiguous(memory_format=torch.channels_last)
        decoded, bits, rounded = net(feature, quality)
        terms = loss_of.terms(feature, loss_of.target(feature), decoded)
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
            for mine, theirs in zip(average.state_dict().values(), net.state_dict().values()):
                mine.lerp_(theirs, 1 - keep)
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach().mean())
        if (step + 1) % every == 0 or step + 1 == steps:
            count = every if (step + 1) % every == 0 else (step + 1) % every
            line = {"step": step + 1, "bytes": [round(x / 8, 1) for x in seen]}
            line.update({name: round(value / count, 4) for name, value in sums.items()})
            score, *apart = loss_of.check(aside, average, targets)
            line.update(aside={"score": round(score, 4), "answer": round(apart[0], 4), "feature": round(apart[1], 4)})
            if best is None or score < best[0]:
                best = score, copy.deepcopy(average.codec)
            log.write(json.dumps(line) + "\n")
            log.flush()
            sums = {}
    return best[1].settle()


__all__ = ["Codec", "Loss", "Pool", "train"]
