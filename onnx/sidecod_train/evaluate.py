"""Figures of a trained codec on validation photos: what the bundle's report says."""

import numpy as np
import torch

from . import data


def psnr(a, b):
    """Peak signal-to-noise ratio in dB of two arrays in 0..1."""
    return float(-10 * np.log10(max(float(np.mean((a - b) ** 2)), 1e-10)))


@torch.no_grad()
def report(encode, decode, teacher, photos, tables, device):
    """Measures 224x224 centre crops of `photos` scaled to a shorter side of 256.

    `encode` and `decode` map float32 [1, 3, H, W] to int symbols [C, h, w] and back; the decoded
    pixels are rounded to 8 bits, as a picture in front of the model server would be.
    """
    quality, bits, agree, stays, divergence = [], [], [], [], []
    for photo in photos:
        original = data.pixels(data.centre_crop(data.short_side(photo, 256), 224))[None]
        symbols = encode(original)
        decoded = np.round(decode(symbols) * 255) / 255
        both = torch.from_numpy(np.concatenate([original, decoded]).astype(np.float32)).to(device)
        logits = teacher(both)[0].double().log_softmax(-1).cpu()
        quality.append(psnr(original, decoded))
        bits.append(tables.code_length(symbols).sum())
        top = int(logits[0].argmax())
        agree.append(int(logits[1].argmax()) == top)
        stays.append(top in logits[1].topk(5).indices.tolist())
        divergence.append(float((logits[0].exp() * (logits[0] - logits[1])).sum()))
    return {
        "photos": len(quality),
        "psnr_db": round(float(np.mean(quality)), 2),
        "top1_agreement": round(float(np.mean(agree)), 4),
        "top1_in_top5": round(float(np.mean(stays)), 4),
        "kl_nats": round(float(np.mean(divergence)), 4),
        "estimated_bytes_224": round(float(np.mean(bits)) / 8, 1),
    }
