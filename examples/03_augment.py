"""Add synthetic volumes of a rare finding to a datalist, and load them with MONAI.

    python examples/03_augment.py MODEL_FOLDER

MODEL_FOLDER is a model package, such as `ctflow train` or a federation leaves. Without
one an untrained network stands in: everything runs, but its volumes are noise.
"""

import sys
import tempfile
from pathlib import Path

import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Resized

from ctflow_fed import augment
from ctflow_fed.ct.codec import HaarCodec
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.phantom import draw
from ctflow_fed.ct.report import HashingReportEncoder
from ctflow_fed.model import PRESETS, FMvT, Provenance, save_package


def main(folder: Path) -> None:
    """Plan, generate, extend, load."""
    model = Path(sys.argv[1]) if len(sys.argv) > 1 else untrained(folder / "model")
    train_items = real_items(folder)

    plan = augment.plan(train_items, target={"Bronchiectasis": 4}, slices=16, seed=0)
    print(plan.describe())
    store = augment.generate(plan, model=model, out=folder / "synthetic", workers=0)
    items = augment.extend(train_items, store, max_ratio=2.0)

    keys = ("image",)
    load = Compose(
        [LoadImaged(keys), EnsureChannelFirstd(keys), Resized(keys, (64, 64, 16))]
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


def untrained(folder: Path) -> Path:
    """Save a network that has learned nothing."""
    torch.manual_seed(0)
    provenance = Provenance(
        codec_id=HaarCodec().codec_id,
        encoder_id=HashingReportEncoder().encoder_id,
        latent_size=(16, 16),
        slices=16,
        spacing=(5.0, 5.0, 5.0),
        steps=0,
        seed=0,
    )
    save_package(folder, FMvT(PRESETS["nano"]), provenance)
    return folder


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
