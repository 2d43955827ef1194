r"""Features of a whole data set in files: the same as `unlabeled extract`.

    python extra_scripts/extract_features.py weights=runs/mine dataset=folder \
        dataset.root=photographs out=features
    python extra_scripts/extract_features.py weights=torchvision:resnet50 dataset=csv \
        dataset.path=images.csv layers=[output,layer3] dtype=float16 out=features

Settings are key=value, as everywhere; `--cfg job` prints all of them. The folder `out` gets
features/<layer>/00000.npy ... ([rows, D], in the order of the data set), index.csv (row, image,
file, label, shard), broken.csv (images that cannot be decoded and have no row) and features.json
(weights, data, view, layers). With index=parquet both tables are .parquet, which needs pyarrow.
A command that was stopped goes on where it was when it is given again. Read it with
unlabeled.evaluation.feature_store.FeatureStore(folder).
"""

from __future__ import annotations

import sys

from unlabeled.cli.main import main

if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
    else:
        sys.exit(main(["extract", *sys.argv[1:]]))
