"""Packs the corpus: runs the TFDS builder for one or all configs, into `data/corpus` by default.

`python -m data.picture_book.build [--configs=speech]`. An existing version is replaced only with --overwrite.
"""

import argparse
import os
import pathlib
import shutil

from data.picture_book import fetch

CORPUS_DIR = pathlib.Path(__file__).resolve().parents[1] / "corpus"


def build(config: str, args: argparse.Namespace) -> pathlib.Path:
    """Builds one config, as `main` parsed the rest, and returns its folder.

    Raises:
      FileExistsError: the version is there and `--overwrite` was not given.
    """
    import tensorflow_datasets as tfds

    from data.picture_book.picture_book import PictureBook

    PictureBook.build_dir, PictureBook.workers = args.build_dir, args.workers
    builder = PictureBook(config=config, data_dir=args.corpus_dir, file_format="array_record")
    target = pathlib.Path(builder.data_dir)
    if target.exists():
        if not args.overwrite:
            raise FileExistsError(f"{target} exists; pass --overwrite to replace it")
        shutil.rmtree(target)
        builder = PictureBook(config=config, data_dir=args.corpus_dir, file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=1))
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build_dir", type=pathlib.Path, default=fetch.BUILD_DIR)
    parser.add_argument("--corpus_dir", type=pathlib.Path, default=CORPUS_DIR)
    parser.add_argument("--configs", nargs="+", default=["pictures", "speech", "readings", "crowd", "text"])
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that encode speech")
    parser.add_argument("--overwrite", action="store_true", help="replace a version that is there")
    args = parser.parse_args()
    for config in args.configs:
        target = build(config, args)
        size = sum(path.stat().st_size for path in target.iterdir())
        print(f"{target}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
