"""Reconstruction, distillation from the teachers, rate, and the orthogonality regulariser."""

import torch
import torch.nn.functional as F


def pixels(mine, theirs):
    """Mean squared error of each sample of a batch, [N]."""
    return (mine - theirs).square().flatten(1).mean(1)


def features(mine, theirs):
    """Mean over layers of each sample's squared error over the whole layer's variance, [N].

    `theirs` is the target. One variance for a layer: a channel's own may be next to zero.
    """
    layers = [(a.float(), b.float()) for a, b in zip(mine, theirs)]
    terms = [pixels(a, b) / b.var().clamp(min=1e-6) for a, b in layers]
    return sum(terms) / len(terms)


def answer(mine, theirs, temperature):
    """KL divergence in nats from the teacher's answer on the original, at `temperature`, times its square, [N]."""
    target = F.log_softmax(theirs / temperature, -1)
    mine = F.log_softmax(mine / temperature, -1)
    return temperature**2 * (target.exp() * (target - mine)).sum(-1)


def orthogonality(convolutions):
    """Sum over layers of the squared off-diagonal part of W W^T, W with one row per output channel."""
    total = 0.0
    for convolution in convolutions:
        weight = convolution.weight
        rows = weight.transpose(0, 1) if isinstance(convolution, torch.nn.ConvTranspose2d) else weight
        rows = rows.reshape(rows.shape[0], -1)
        gram = rows @ rows.t()
        total = total + (gram - torch.diag(torch.diagonal(gram))).square().sum()
    return total


def total(config, original, decoded, bits, weight, teachers, convolutions):
    """Returns (the loss, {name: mean without gradient}) of a batch; `config` is a LossConfig.

    The loss is bits per pixel plus, times each sample's `weight` [N], what the decoded picture
    lost; both over the weight's root, so that samples count about alike.
    """
    terms = {"pixels": pixels(decoded, original), "features": 0.0, "answer": 0.0}
    for teacher in teachers:
        with torch.no_grad():
            logits, target = teacher(original)
        decoded_logits, decoded_features = teacher(decoded)
        if target:
            terms["features"] = terms["features"] + teacher.weight * features(decoded_features, target)
        terms["answer"] = terms["answer"] + teacher.weight * answer(decoded_logits, logits, config.temperature)
    lost = sum(getattr(config, name) * value for name, value in terms.items())
    terms["rate"] = bits / (original.shape[2] * original.shape[3])
    loss = ((weight * lost + config.rate * terms["rate"]) / weight.sqrt()).mean()
    if config.orthogonality:
        terms["orthogonality"] = orthogonality(convolutions)
        loss = loss + config.orthogonality * terms["orthogonality"]
    return loss, {name: torch.as_tensor(value).detach().mean() for name, value in terms.items()}
