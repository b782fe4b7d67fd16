"""Draws the pictures: 64 x 64 PNG files and a table of label, source, cluster and split.

`python -m data.picture_book.pictures [--sheets]`. Needs `rsvg-convert` (Debian's librsvg2-bin). A picture is composited
on white, cropped to its subject and fitted into the square. Pictures whose perceptual hashes are near, recolourings,
renderings of one drawing by two packages and named series form one cluster; a cluster is in one split only.
"""

import argparse
import concurrent.futures
import functools
import hashlib
import io
import json
import pathlib
import re
import subprocess
import tarfile

import numpy as np
import PIL.Image
import PIL.ImageDraw
import rich.progress

from data.picture_book import catalogue, fetch

SIZE = 64
SPLIT_PER_CLASS = 40  # test pictures are chosen among so many of a class; the others are for training
TEST_PER_CLASS = 8
GREY_BITS, OUTLINE_BITS, OUTLINE_GREY_BITS = 12, 6, 22
BACKGROUND = 245  # lighter than this in every channel is background


def drawings(root: pathlib.Path) -> list[tuple[str, str]]:
    """(label, path below openclipart) of every drawing of a class."""
    paths = sorted(str(p.relative_to(root)) for p in root.rglob("*.png"))
    skipped = ("computer/icons", "signs_and_symbols/flags", "recreation/games/cards", "logos", "unsorted/duplicates")
    found = []
    for label, (folders, words) in catalogue.DRAWINGS.items():
        pattern = re.compile(rf"(?:^|[_\-./0-9])(?:{words.replace(' ', '|')})s?(?=$|[_\-./0-9])", re.IGNORECASE)
        excluded = set(catalogue.EXCLUDED.get(label, ("", ""))[1].split())
        for path in paths:
            name = path.rsplit("/", 1)[-1].removesuffix(".png")
            hit = path.startswith(folders) or (pattern.search(name) and not path.startswith(skipped))
            if hit and name not in excluded:
                found.append((label, path))
    return found


@functools.cache
def _icon_set(packages: pathlib.Path, prefix: str) -> dict:
    path = next(packages.glob(f"iconify-json-{prefix}-[0-9]*.tgz"))
    with tarfile.open(path) as archive:
        return json.load(archive.extractfile("package/icons.json"))


def icons(packages: pathlib.Path) -> list[tuple[str, str]]:
    """(label, "set:name") of every icon of a class."""
    found = []
    for label, names in catalogue.ICONS.items():
        for prefix in catalogue.ICON_SETS:
            have = _icon_set(packages, prefix)["icons"]
            keys = [f"{prefix}:{name}" for name in names.split() if name in have]
            found += [(label, key) for key in keys if key not in catalogue.ICONS_EXCLUDED]
    return found


def _render_icon(packages: pathlib.Path, key: str) -> PIL.Image.Image:
    prefix, name = key.split(":")
    data = _icon_set(packages, prefix)
    icon = data["icons"][name]
    width, height = (icon.get(k, data.get(k, 16)) for k in ("width", "height"))
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="black" '
           f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}">{icon["body"]}</svg>')  # fmt: skip
    command = ["rsvg-convert", "--width", "256", "--height", "256", "--keep-aspect-ratio"]
    png = subprocess.run(command, input=svg.encode(), capture_output=True, check=True).stdout
    return PIL.Image.open(io.BytesIO(png))


def fit(image: PIL.Image.Image) -> PIL.Image.Image | None:
    """Composites on white, crops to the subject, fits into SIZE x SIZE; None if there is nothing to see."""
    image = image.convert("RGBA")
    image.thumbnail((600, 600))
    white = PIL.Image.new("RGBA", image.size, "white")
    rgb = PIL.Image.alpha_composite(white, image).convert("RGB")
    rows, columns = np.where(np.asarray(rgb).min(axis=-1) < BACKGROUND)
    if rows.size == 0:
        return None
    rgb = rgb.crop((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    scale = (SIZE - 2) / max(rgb.size)
    rgb = rgb.resize([max(1, round(side * scale)) for side in rgb.size], PIL.Image.Resampling.LANCZOS)
    square = PIL.Image.new("RGB", (SIZE, SIZE), "white")
    square.paste(rgb, ((SIZE - rgb.width) // 2, (SIZE - rgb.height) // 2))
    return square


def _dct_hash(plane: np.ndarray) -> np.ndarray:
    """63 bits: the signs of the lowest two-dimensional cosine coefficients against their median."""
    n = plane.shape[0]
    basis = np.cos(np.pi / n * (np.arange(n)[None] + 0.5) * np.arange(8)[:, None])
    low = (basis @ plane @ basis.T).ravel()[1:]
    return low > np.median(low)


def hashes(image: PIL.Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Perceptual hashes of the brightness, and of the outline, which a recolouring does not change."""
    grey = np.asarray(image.convert("L").resize((32, 32), PIL.Image.Resampling.BOX), np.float64)
    outline = (np.asarray(image).min(axis=-1) < BACKGROUND).astype(np.float64)
    return _dct_hash(grey), _dct_hash(outline.reshape(32, 2, 32, 2).mean((1, 3)))


def series(source: str) -> str:
    """A key that drawings of one hand share although their hashes may differ."""
    if ":" in source:
        prefix, name = source.split(":")
        family = "fluent" if prefix.startswith("fluent") else prefix
        name = next((p for p in catalogue.ICON_SERIES if re.search(p, name)), name)
        return f"{family}:{re.sub(r'(-fill|-[0-9]+|-one|-two)$', '', name)}"
    name = source.rsplit("/", 1)[-1].removesuffix(".png").lower()
    for pattern in catalogue.SERIES:
        if re.search(pattern, name):
            return pattern
    return re.sub(r"_?bw|_simple|(?<=[a-z_])_?0?\d+$", "", name) if "bw" in name else name


def clusters(pictures: list[dict]) -> list[int]:
    """Union-find over near hashes and shared series; the id is the smallest index of the cluster."""
    parent = list(range(len(pictures)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    grey = np.stack([p["hashes"][0] for p in pictures])
    outline = np.stack([p["hashes"][1] for p in pictures])
    keys = [(p["label"], series(p["source"])) for p in pictures]
    for i in range(len(pictures)):
        grey_bits, outline_bits = (grey[i] != grey[:i]).sum(-1), (outline[i] != outline[:i]).sum(-1)
        near = (grey_bits <= GREY_BITS) | ((outline_bits <= OUTLINE_BITS) & (grey_bits <= OUTLINE_GREY_BITS))
        for j in range(i):
            if near[j] or keys[i] == keys[j]:
                low, high = sorted((root(i), root(j)))
                parent[high] = low
    return [root(i) for i in range(len(pictures))]


def assign_splits(pictures: list[dict]) -> None:
    """Marks whole clusters as test, small ones first, in an order that a hash of the source decides."""
    members: dict[int, list[dict]] = {}
    for picture in pictures:
        picture["split"] = "train"
        members.setdefault(picture["cluster"], []).append(picture)
    order = sorted(members.values(), key=lambda group: (len(group) > 2, _digest(group[0]["source"])))
    count = dict.fromkeys(catalogue.DRAWINGS, 0)
    for group in order:
        labels = {p["label"] for p in group}
        if all(count[label] + len(group) <= TEST_PER_CLASS + 2 for label in labels) and len(group) <= 4:
            for picture in group:
                picture["split"] = "test"
                count[picture["label"]] += 1


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def draw_all(build_dir: pathlib.Path) -> list[dict]:
    """Every picture as a dict of label, source, image, hashes, cluster and split."""
    root, packages = fetch.openclipart_dir(build_dir), build_dir / "packages"
    PIL.Image.MAX_IMAGE_PIXELS = None
    jobs = drawings(root) + icons(packages)

    def draw(job: tuple[str, str]) -> dict | None:
        label, source = job
        image = fit(_render_icon(packages, source) if ":" in source else PIL.Image.open(root / source))
        return image and {"label": label, "source": source, "image": image, "hashes": hashes(image)}

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        drawn = rich.progress.track(pool.map(draw, jobs), total=len(jobs), description="pictures")
        chosen, others = _choose([p for p in drawn if p])
    for picture, cluster in zip(chosen, clusters(chosen), strict=True):
        picture["cluster"] = cluster
    assign_splits(chosen)
    pictures = chosen + _unlike_test(chosen, others)
    for picture, cluster in zip(pictures, clusters(pictures), strict=True):
        picture["cluster"] = cluster
    return pictures


def _choose(pictures: list[dict]) -> tuple[list[dict], list[dict]]:
    """SPLIT_PER_CLASS of a class, chosen by a hash, and the others."""
    chosen, others = [], []
    for label in catalogue.DRAWINGS:
        mine = sorted((p for p in pictures if p["label"] == label), key=lambda p: _digest(p["source"]))
        chosen += sorted(mine[:SPLIT_PER_CLASS], key=lambda p: p["source"])
        others += sorted(mine[SPLIT_PER_CLASS:], key=lambda p: p["source"])
    return chosen, others


def _unlike_test(chosen: list[dict], others: list[dict]) -> list[dict]:
    """Those of `others` that are in no cluster with a test picture and no copies, for training."""
    cluster = clusters(chosen + others)
    tested = {c for c, picture in zip(cluster, chosen, strict=False) if picture["split"] == "test"}
    seen = {picture["image"].tobytes() for picture in chosen}
    kept = []
    for c, picture in zip(cluster[len(chosen) :], others, strict=True):
        pixels = picture["image"].tobytes()
        if c not in tested and pixels not in seen:
            seen.add(pixels)
            kept.append(picture | {"split": "train"})
    return kept


def contact_sheet(pictures: list[dict], path: pathlib.Path) -> None:
    """One row or more a class; test pictures have a red frame, numbers are positions in the class."""
    columns, cell = 20, SIZE + 12
    rows = []
    for label in catalogue.DRAWINGS:
        mine = [p for p in pictures if p["label"] == label]
        rows += [(label, i, mine[i : i + columns]) for i in range(0, len(mine), columns)]
    sheet = PIL.Image.new("RGB", (columns * cell + 60, len(rows) * cell), "lightgrey")
    pen = PIL.ImageDraw.Draw(sheet)
    for y, (label, first, row) in enumerate(rows):
        pen.text((2, y * cell + 20), label, fill="black")
        for x, picture in enumerate(row):
            sheet.paste(picture["image"], (60 + x * cell, y * cell))
            pen.text((62 + x * cell, y * cell + SIZE), f"{first + x}", fill="black")
            if picture["split"] == "test":
                pen.rectangle((60 + x * cell, y * cell, 60 + x * cell + SIZE, y * cell + SIZE), outline="red")
    sheet.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build_dir", type=pathlib.Path, default=fetch.BUILD_DIR)
    parser.add_argument("--sheets", action="store_true", help="also draw contact_sheet.png to look at")
    args = parser.parse_args()
    folder = args.build_dir / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    pictures = draw_all(args.build_dir)
    if args.sheets:
        contact_sheet(pictures, args.build_dir / "contact_sheet.png")
    table = []
    for i, picture in enumerate(pictures):
        picture["image"].save(folder / f"{i:04d}.png", optimize=True)
        table.append({k: picture[k] for k in ("label", "source", "cluster", "split")} | {"file": f"{i:04d}.png"})
    (folder / "table.json").write_text(json.dumps(table, indent=1))
    for label in catalogue.DRAWINGS:
        mine = [p for p in pictures if p["label"] == label]
        test = [p for p in mine if p["split"] == "test"]
        count = len({p["cluster"] for p in mine})
        print(f"{label:8} {len(mine):3} pictures, {count:3} clusters, {len(test):2} in test")


if __name__ == "__main__":
    main()
