"""Add synthetic volumes of a rare finding to a datalist, and load them with MONAI.

    python examples/03_augment.py [MODEL_FOLDER]

MODEL_FOLDER is a model package, such as `ctflow train` or a federation leaves; without
one the shipped base model draws.
"""

import sys
import tempfile
from pathlib import Path

from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Resized

from ctflow_fed import augment
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.phantom import draw


def main(folder: Path) -> None:
    """Plan, generate, extend, load."""
    model = sys.argv[1] if len(sys.argv) > 1 else "base"
    train_items = real_items(folder)

    plan = augment.plan(train_items, target={"Bronchiectasis": 4}, slices=32, seed=0)
    print(plan.describe())
    store = augment.generate(plan, model=model, out=folder / "synthetic", workers=0)
    items = augment.extend(train_items, store, max_ratio=2.0)

    keys = ("image",)
    load = Compose(
        [LoadImaged(keys), EnsureChannelFirstd(keys), Resized(keys, (64, 64, 32))]
    )
    dataset = CacheDataset(items, load, progress=False)
    for batch in DataLoader(dataset, batch_size=2, shuffle=True):
        print(tuple(batch["image"].shape), "synthetic:", batch["synthetic"].tolist())


def real_items(folder: Path) -> list[dict[str, object]]:
    """Stand in for a hospital's datalist: two phantoms."""
    items = []
    for seed, found in enumerate([{"Bronchiectasis", "Emphysema"}, set()]):
        study = draw(seed, found)
        path = folder / f"real_{seed}.nii.gz"
        write_nifti(study.volume, path)
        items.append({"image": path, "label": [study.labels[f] for f in FINDINGS]})
    return items


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
