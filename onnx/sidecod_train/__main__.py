"""`python -m sidecod_train`: a configuration and a data folder in, a codec bundle out."""

import argparse
import sys
from pathlib import Path

from . import ablation, data, export, fold
from . import config as configuration
from .points.__main__ import main as split
from .points.cut import CutError
from .teacher import GraphError, Teacher
from .train import Trainer
from .warm import StartError


def main(arguments=None):
    """Trains and exports; returns the manifest. First arguments `split`, `ablation` and `fold`: see there."""
    arguments = sys.argv[1:] if arguments is None else arguments
    others = {"split": split, "ablation": ablation.main, "fold": fold.main}
    if arguments and arguments[0] in others:
        return others[arguments[0]](arguments[1:])
    parser = argparse.ArgumentParser(prog="sidecod_train", description=__doc__)
    parser.add_argument("--config", required=True, help="TOML file, see configs/")
    parser.add_argument("--data", help="folder of photos, with index.csv or without")
    parser.add_argument("--teacher", help="ONNX model whose answers the codec keeps")
    parser.add_argument("--out", help="folder of the bundle (default: codecs/NAME beside the package)")
    parser.add_argument("--run", help="folder of checkpoint and log (default: runs/NAME beside the package)")
    begun = parser.add_mutually_exclusive_group()
    begun.add_argument("--from", dest="start", help="bundle of the light net whose weights to begin with")
    begun.add_argument("--code-from", dest="code", help="the same without its decoder, which begins as the best linear one")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument("--export-only", action="store_true", help="export the checkpoint as it is")
    args = parser.parse_args(arguments)
    config = configuration.load(args.config, args.data, args.teacher)
    root = Path(__file__).resolve().parents[1]
    out = Path(args.out) if args.out else root / "codecs" / config.name
    run = Path(args.run) if args.run else root / "runs" / config.name
    log, resuming = run / "train.jsonl", args.resume or args.export_only
    # A code that is never trained is the same code still, with its tables.
    code = (args.start or args.code) if config.train.freeze_code == 0 else None
    if code and len(export.code_of(code)[1][0]) != config.light.channels:
        raise configuration.ConfigError(f"{args.config}: light.channels: a code that stays as it is has those of {code}")
    if log.exists() and not resuming:
        log.unlink()

    paths = data.splits(config.data.dir)
    train_photos = data.load_photos(paths["train"], config.data.max_side)
    trainer = Trainer(config, train_photos, [Teacher(t) for t in config.teacher], run)
    if resuming:
        trainer.resume()
    elif args.start or args.code:
        trainer.start_from(args.start or args.code, with_decoder=not args.code)
    print(f"{len(train_photos)} photos, {trainer.device}, step {trainer.step} of {config.train.steps}")
    if not args.export_only:
        trainer.train()
    if trainer.rank:
        return None
    val_photos = data.load_photos(paths["val"], config.data.max_side)
    manifest = export.bundle(trainer, train_photos, val_photos, out, code)
    for quality in manifest["qualities"]:
        print(f"{out}: {quality['name']}: {quality['report']}")
    return manifest


if __name__ == "__main__":
    try:
        main()
    except (
        configuration.ConfigError, data.DataError, CutError, GraphError, StartError, FileNotFoundError
    ) as error:
        print(f"sidecod_train: {error}", file=sys.stderr)
        sys.exit(2)
