"""Train a DenseNet121 on real and synthetic volumes, with every kind of MONAI dataset.

    python examples/04_classifier.py

The training script is `main`, under 30 lines; `real_items` stands in for a datalist of
your own. The network is thin and sees four coarse volumes from each dataset: it shows
the way, no more.
"""

import tempfile
from pathlib import Path

import torch
from monai.data import CacheDataset, Dataset, PersistentDataset, ThreadDataLoader
from monai.networks.nets import DenseNet121
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Resized,
    ScaleIntensityRanged,
)
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import ConcatDataset, WeightedRandomSampler

from ctflow_fed import augment
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.phantom import draw


def main(folder: Path) -> None:
    """Plan, generate, extend, and train."""
    train_items = real_items(folder)
    plan = augment.plan(train_items, target={"Bronchiectasis": 4}, slices=32, seed=0)
    store = augment.generate(plan, model="base", out=folder / "synthetic", workers=0)
    items = augment.extend(train_items, store, max_ratio=1.0)
    lazy = augment.SyntheticCTDataset(plan, model="base", out=store.folder)
    mixed = ConcatDataset([augment.extend(train_items, store, max_ratio=0), lazy])

    window = ScaleIntensityRanged("image", -1000, 1000, -1, 1, clip=True)
    cube = Resized("image", (32, 32, 32))
    load = Compose([LoadImaged("image"), EnsureChannelFirstd("image"), window, cube])
    own_cache = {"track_meta": True, "weights_only": False}  # it is pickled
    swap = augment.RandSyntheticCTd(store, train_items, prob=0.3)
    datasets = {
        "from paths": Dataset(items, load),
        "in memory": CacheDataset(items, load, progress=False),
        "on disk": PersistentDataset(items, load, folder / "cache", **own_cache),
        "swapped in": Dataset(items, Compose([swap, load])),
        "drawn on demand": CacheDataset(mixed, load, progress=False),
    }
    sampler = WeightedRandomSampler(augment.mix_weights(items, ratio=0.5), 4)
    network = DenseNet121(3, 1, len(FINDINGS), init_features=16, growth_rate=8)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    for kind, dataset in datasets.items():
        for batch in ThreadDataLoader(dataset, batch_size=2, sampler=sampler):
            logits = network(batch["image"].as_tensor())
            loss = binary_cross_entropy_with_logits(logits, batch["label"])
            network.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"{kind:<16} synthetic {batch['synthetic'].tolist()}, loss {loss:.3f}")


def real_items(folder: Path) -> list[dict[str, object]]:
    """Stand in for a hospital's datalist: four phantoms, one with the rare finding."""
    items = []
    for seed, found in enumerate([{"Bronchiectasis"}, {"Emphysema"}, set(), set()]):
        study = draw(seed, found)
        path = folder / f"real_{seed}.nii.gz"
        write_nifti(study.volume, path)
        items.append({"image": path, "label": [study.labels[f] for f in FINDINGS]})
    return items


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
