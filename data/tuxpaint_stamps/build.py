"""Fetches Debian's `tuxpaint-stamps-default` and packs it: `python -m data.tuxpaint_stamps.build`.

Needs apt-get and `rsvg-convert` (librsvg2-bin). With --stamps_dir an installed or unpacked copy is used instead. The
result goes to `data/build/tfds` and must not be added to the repository: it is under GPL-2.
"""

import argparse
import hashlib
import pathlib
import subprocess

BUILD_DIR = pathlib.Path(__file__).resolve().parents[1] / "build"
PACKAGE = "tuxpaint-stamps-default=2022.06.04-1"
FILE = "tuxpaint-stamps-default_2022.06.04-1_all.deb"
SHA256 = "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"


def fetch(build_dir: pathlib.Path) -> pathlib.Path:
    """Downloads, checks and unpacks the package if need be, and returns the folder of stamps.

    Raises:
      RuntimeError: the download failed or the file is another one than this recipe was written for.
    """
    packages = build_dir / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    path, target = packages / FILE, build_dir / "unpacked" / "tuxpaint-stamps-default"
    if not path.exists():
        try:
            subprocess.run(["apt-get", "download", "--quiet", PACKAGE], cwd=packages, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise RuntimeError(f"could not fetch {PACKAGE} ({error}); put {FILE} into {packages} by hand") from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SHA256:
        raise RuntimeError(f"{path} has sha256 {digest}, wanted {SHA256}; delete it and run this again")
    if not target.exists():
        temporary = target.with_name(target.name + ".tmp")
        temporary.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "-x", str(path), str(temporary)], check=True)
        temporary.rename(target)
    return target / "usr/share/tuxpaint/stamps"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build_dir", type=pathlib.Path, default=BUILD_DIR)
    parser.add_argument("--output_dir", type=pathlib.Path, help="default: tfds in the build folder")
    parser.add_argument("--stamps_dir", type=pathlib.Path, help="an unpacked copy, such as /usr/share/tuxpaint/stamps")
    args = parser.parse_args()

    from data.tuxpaint_stamps.tuxpaint_stamps import TuxpaintStamps

    TuxpaintStamps.stamps_dir = args.stamps_dir or fetch(args.build_dir)
    builder = TuxpaintStamps(data_dir=args.output_dir or args.build_dir / "tfds", file_format="array_record")
    builder.download_and_prepare()
    for name, split in builder.info.splits.items():
        print(f"{name}: {split.num_examples} examples, {split.num_bytes / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
