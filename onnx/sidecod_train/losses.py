"""Reconstruction, distillation from the teacher, and the orthogonality regulariser."""

import torch
import torch.nn.functional as F


def features(mine, theirs):
    """Mean over layers of squared error over the whole layer's variance; `theirs` is the target."""
    terms = [(a - b).square().mean() / b.var().clamp(min=1e-6) for a, b in zip(mine, theirs)]
    return sum(terms) / len(terms)


def answer(mine, theirs, temperature):
    """KL divergence in nats from the teacher's answer on the original, at `temperature`, times its square."""
    target = F.log_softmax(theirs / temperature, -1)
    return temperature**2 * F.kl_div(
        F.log_softmax(mine / temperature, -1), target, reduction="batchmean", log_target=True
    )


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


def total(config, pixels, decoded, teacher, convolutions):
    """Returns (the weighted sum, {name: value}) for a batch; `config` is a LossConfig."""
    terms = {"pixels": F.mse_loss(decoded, pixels)}
    with torch.no_grad():
        logits, target = teacher(pixels)
    decoded_logits, decoded_features = teacher(decoded)
    terms["features"] = features(decoded_features, target)
    terms["answer"] = answer(decoded_logits, logits, config.temperature)
    terms["orthogonality"] = orthogonality(convolutions)
    loss = (
        config.pixels * terms["pixels"]
        + config.features * terms["features"]
        + config.answer * terms["answer"]
        + config.orthogonality * terms["orthogonality"]
    )
    return loss, {name: float(value.detach()) for name, value in terms.items()}
