"""Rebuild the bundled sample from the IDX files of Fashion-MNIST.

Debian carries them in the package dataset-fashion-mnist::

    apt-get install dataset-fashion-mnist
    python -m trainers.data.build /usr/share/datasets/fashion-mnist
"""

import argparse
from pathlib import Path

from plstore.exchange import IdxSplits, idx_files, write_parquet_folder
from trainers.data import FASHION_MNIST_CLASSES, sample_folder

SPLITS = IdxSplits(num_labeled=300, num_validation=1000, num_unlabeled=12_000, num_test=5000)


def main() -> None:
    """Write the sample and say how large it became."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="folder of the four IDX files")
    parser.add_argument("--out", type=Path, default=sample_folder(), help="folder to write")
    arguments = parser.parse_args()
    source = idx_files(
        arguments.source,
        class_names=FASHION_MNIST_CLASSES,
        splits=SPLITS,
        dataset="fashion_mnist",
    )
    write_parquet_folder(arguments.out, source)
    size = sum(path.stat().st_size for path in arguments.out.glob("*.parquet"))
    print(f"{arguments.out}: {source.splits}, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
