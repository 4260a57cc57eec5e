"""Photos in memory, and random crops of them."""

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


class DataError(ValueError):
    """A data folder that cannot be used."""


def splits(folder):
    """Returns {"train": [paths], "val": [paths]} of `folder`.

    With an `index.csv` its column `split` decides; without one every fifth picture is for validation.
    """
    folder = Path(folder)
    index = folder / "index.csv"
    out = {"train": [], "val": []}
    if index.exists():
        with open(index, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["split"] not in out:
                    raise DataError(f"{index}: {row['file']}: unknown split {row['split']!r}")
                out[row["split"]].append(folder / row["file"])
    elif folder.is_dir():
        pictures = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
        for i, path in enumerate(pictures):
            out["val" if i % 5 == 4 else "train"].append(path)
    if not out["train"]:
        raise DataError(f"{folder}: no pictures to train on")
    return out


def load_photo(path, max_side):
    """Reads one picture, scaled down so that its longer side is at most `max_side`: RGB, or RGBA if it is a cut-out."""
    with Image.open(path) as image:
        image = image.convert("RGBA" if image.mode == "RGBA" else "RGB")
    scale = max_side / max(image.size)
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in image.size)
        image = image.resize(size, Image.LANCZOS)
    return image


def load_photos(paths, max_side):
    """All of `paths` as PIL images; about 2 MB of memory each at 1024 pixels."""
    return [load_photo(path, max_side) for path in paths]


def whole(photos):
    """Those of `photos` that are no cut-outs."""
    return [photo for photo in photos if photo.mode == "RGB"]


def large(photos, side):
    """Those of `photos` with a shorter side of `side` pixels or more; some are no cut-outs."""
    kept = [photo for photo in photos if min(photo.size) >= side]
    if not whole(kept):
        raise DataError(f"no photo has {side} pixels on its shorter side")
    return kept


def short_side(image, side):
    """`image` scaled so that its shorter side is `side`."""
    scale = side / min(image.size)
    return image.resize(tuple(max(1, round(s * scale)) for s in image.size), Image.BICUBIC)


def centre_crop(image, side):
    """The central square of `image`."""
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def pixels(image):
    """float32 [3, H, W] in 0..1."""
    return np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255.0


def pad_to(array, stride):
    """[C, H, W] padded to multiples of `stride` by repeating the last row and column."""
    _, height, width = array.shape
    return np.pad(array, ((0, 0), (0, -height % stride), (0, -width % stride)), mode="edge")


class Crops:
    """Random square crops: any place, scale, left-right flip, colour gain.

    The crops of a batch depend on the seed and the batch's number alone, so that a run can be
    resumed, and batches made ahead of time by several threads.
    """

    def __init__(self, photos, config, seed, batch):
        """`photos` are PIL images; `batch` is the size of every batch."""
        self.photos = large(photos, config.min_side)
        self.grounds = whole(self.photos)
        self.config, self.seed, self.size = config, seed, batch
        self.threads = ThreadPoolExecutor(config.workers) if config.workers else None
        self.ahead = {}

    def cut(self, rng, photo):
        """A random square of `photo`, scaled to the crop's size."""
        crop = self.config.crop
        shortest = min(photo.size)
        smallest = min(shortest, max(crop, self.config.min_fraction * shortest))
        largest = max(smallest, self.config.max_fraction * shortest)
        # The logarithm and back may end a hair beyond the photo.
        side = min(shortest, float(np.exp(rng.uniform(np.log(smallest), np.log(largest)))))
        left = rng.uniform(0, photo.width - side)
        top = rng.uniform(0, photo.height - side)
        return photo.resize((crop, crop), Image.LANCZOS, box=(left, top, left + side, top + side))

    def one(self, rng):
        """float32 [3, crop, crop] in 0..1."""
        photo = self.photos[rng.integers(len(self.photos))]
        image = self.cut(rng, photo)
        if photo.mode == "RGBA":
            ground = self.cut(rng, self.grounds[rng.integers(len(self.grounds))])
            ground.paste(image, (0, 0), image)
            image = ground
        out = pixels(image)
        if rng.random() < 0.5:
            out = out[:, :, ::-1]
        gain = 1 + rng.uniform(-1, 1) * self.config.colour + rng.uniform(
            -0.5, 0.5, (3, 1, 1)
        ) * self.config.colour
        return np.clip(out * gain, 0, 1).astype(np.float32)

    def make(self, number, size):
        """Batch `number`, from 0, of any size: float32 [size, 3, crop, crop] in 0..1."""
        rng = np.random.default_rng([self.seed, number])
        return np.stack([self.one(rng) for _ in range(size)])

    def batch(self, number, following):
        """Batch `number` of the usual size; `following` says which ones are worth making ahead."""
        if not self.threads:
            return self.make(number, self.size)
        wanted = [number, *following]
        for each in wanted:
            if each not in self.ahead:
                self.ahead[each] = self.threads.submit(self.make, each, self.size)
        self.ahead = {each: self.ahead[each] for each in wanted}
        return self.ahead.pop(number).result()


class DeviceCrops:
    """As Crops, for a GPU that would wait for them: photos at the sizes of `config.sides` in its memory, and crops of those."""

    def __init__(self, photos, config, seed, batch, device):
        """`photos` are PIL images, those of too short a side are left out; `device` is a torch.device."""
        self.config, self.seed, self.size, self.device = config, seed, batch, device
        sides, crop = sorted(config.sides), config.crop
        photos = large(photos, max(crop, config.min_side))

        def scaled(photo):
            kept = [short_side(photo, side) for side in sides if crop <= side <= min(photo.size)]
            return [np.array(each.convert("RGBA")) for each in kept or [photo]]

        with ThreadPoolExecutor(config.workers or None) as threads:
            sizes = list(threads.map(scaled, photos))
        flat = [each for photo in sizes for each in photo]
        self.pixels = torch.cat([torch.from_numpy(each).reshape(-1, 4).to(device) for each in flat])

        def tensor(values):
            return torch.tensor(values, dtype=torch.int64, device=device)

        self.height, self.width = tensor([each.shape[0] for each in flat]), tensor([each.shape[1] for each in flat])
        areas = self.height * self.width
        self.start = areas.cumsum(0) - areas
        self.count = tensor([len(photo) for photo in sizes])
        self.first = self.count.cumsum(0) - self.count
        self.all = tensor(range(len(photos)))
        self.grounds = tensor([i for i, photo in enumerate(photos) if photo.mode == "RGB"])

    def cut(self, rng, photos):
        """float32 [N, 4, crop, crop] in 0..1: a random square of a random one of `photos` each."""
        crop = self.config.crop
        draw = torch.rand(4, self.size, generator=rng, device=self.device)
        photo = photos[(draw[0] * len(photos)).long().clamp(max=len(photos) - 1)]
        each = self.first[photo] + torch.minimum((draw[1] * self.count[photo]).long(), self.count[photo] - 1)
        height, width = self.height[each], self.width[each]
        top, left = (d * (side - crop + 1) for d, side in ((draw[2], height), (draw[3], width)))
        top, left = torch.minimum(top.long(), height - crop), torch.minimum(left.long(), width - crop)
        along = torch.arange(crop, device=self.device)
        row = self.start[each, None] + (top[:, None] + along) * width[:, None]
        at = row[:, :, None] + (left[:, None] + along)[:, None, :]
        return self.pixels[at].permute(0, 3, 1, 2).float() / 255.0

    def batch(self, number, following):
        """Batch `number`: float32 [batch, 3, crop, crop] in 0..1; the same for the same seed and number."""
        rng = torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + number)
        image, ground = self.cut(rng, self.all), self.cut(rng, self.grounds)
        opaque = image[:, 3:]
        out = image[:, :3] * opaque + ground[:, :3] * (1 - opaque)
        draw = torch.rand(5, self.size, generator=rng, device=self.device)
        out = torch.where(draw[0, :, None, None, None] < 0.5, out, out.flip(3))
        gain = 1 + self.config.colour * (2 * draw[1] - 1 + draw[2:] - 0.5)
        return (out * gain.t()[:, :, None, None]).clamp(0, 1)
