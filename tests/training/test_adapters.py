import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ctflow_fed.cli import cli
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import (
    MismatchError,
    MissingExtraError,
    PackageError,
    SettingsError,
)
from ctflow_fed.model import (
    PRESETS,
    Conditions,
    FMvT,
    FMvTConfig,
    FrameConditions,
    ModelPackage,
    fresh_network,
    load_package,
    save_package,
)
from ctflow_fed.model.fmvt import is_extension
from ctflow_fed.training import (
    AdapterSettings,
    TrainSettings,
    describe,
    fit,
    load_adapter,
    train,
)
from ctflow_fed.training.adapters import (
    changes_of,
    down_matrices,
    save_adapter,
    with_adapter,
    with_up_matrices,
    zero_changes,
)
from ctflow_fed.training.merge import Adapter, merged, moved, unmerged
from ctflow_fed.training.step import trained_weights
from ctflow_fed.weights import weights_digest

RANK = AdapterSettings(rank=4, alpha=8)
SETTINGS = TrainSettings(batch_clips=1, warmup_steps=0, learning_rate=1e-2)


def _network(*, released: bool = False, seed: int = 0) -> FMvT:
    """Return a network whose last layers are not zero, as if it were trained."""
    config = FMvTConfig(layers=1, features=32, heads=2, released=released)
    network = fresh_network(config, seed).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.named_parameters():
        if not is_extension(name):
            value.data += 0.05 * torch.randn(value.shape, generator=generator)
    return network


def _package(store: Path, folder: Path, **network: bool | int) -> ModelPackage:
    provenance = describe(LatentStore.open(store), steps=0, seed=0)
    save_package(folder, _network(**network), provenance)
    return load_package(folder)


def _trained(store: Path, base: FMvT, steps: int = 3) -> tuple[FMvT, Adapter]:
    """Train an adapter for a few steps; return the network it is in, and itself."""
    opened = LatentStore.open(store)
    adapted = with_adapter(base, RANK, seed=0)
    fit(adapted, opened, SETTINGS, steps=steps, seed=0)
    changes = changes_of(trained_weights(adapted), base.state_dict())
    provenance = describe(opened, steps=steps, seed=0)
    digest = weights_digest(base.state_dict())
    return adapted.eval(), Adapter(RANK, digest, changes, provenance)


def _saved(store: Path, package: ModelPackage, folder: Path) -> Path:
    save_adapter(folder, _trained(store, package.network)[1])
    return folder


@torch.no_grad()
def _velocity(network: FMvT) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    noisy, context = torch.randn(2, 1, 16, 16, 8, 8, generator=generator)
    frames = FrameConditions.of(
        torch.zeros(1, 16, network.frame_embedder.geometry.in_features // 13),
        torch.zeros(1, 16, dtype=torch.bool),
        torch.zeros(1),
    )
    report = torch.randn(1, 3, 768, generator=generator)
    conditions = Conditions(context, report, torch.ones(1, 3).bool(), frames)
    return network(noisy, torch.tensor([0.7]), conditions)


def test_an_adapter_changes_no_number_until_it_is_trained():
    network = _network()
    adapted = with_adapter(network, RANK, seed=0)

    assert torch.equal(_velocity(adapted), _velocity(network))


def test_first_weights_of_an_adapter_are_a_function_of_the_seed():
    first, same, other = (
        weights_digest(trained_weights(with_adapter(_network(), RANK, seed=seed)))
        for seed in (0, 0, 1)
    )

    assert first == same != other


def test_matrices_a_are_a_function_of_the_seed_and_the_layer():
    first, same, other = (down_matrices(_network(), 4, seed) for seed in (0, 0, 1))

    assert weights_digest(first) == weights_digest(same) != weights_digest(other)
    assert not torch.equal(first["blocks.0.attn.qkv.lora_A"], first["t_block.1.lora_A"])
    for matrix in first.values():
        limit = matrix.shape[1] ** -0.5
        assert 0.8 * limit < matrix.abs().max() <= limit


def test_an_adapter_goes_on_from_its_changes_with_its_matrices_a_as_they_are():
    base = _network(released=True)
    down, changes = down_matrices(base, 4, seed=0), zero_changes(base, 4)
    for name, value in changes.items():
        changes[name] = value + 0.01 * (1 + len(name) % 3)
    settings = AdapterSettings(rank=4, alpha=8)

    adapted = with_up_matrices(base, settings, {**down, **changes}, changes).eval()
    trained = changes_of(trained_weights(adapted), base.state_dict())
    assert trained.keys() == changes.keys()
    assert all(torch.allclose(trained[n], changes[n], atol=1e-7) for n in changes)
    plain = moved(base, settings, {**down, **changes})
    expected = _velocity(plain)
    assert (_velocity(adapted) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_training_an_adapter_leaves_the_base_as_it_is(haar_store: Path):
    base = _network()
    before = weights_digest(base.state_dict())
    adapted, _ = _trained(haar_store, base)

    frozen = {
        name.replace(".base_layer", ""): value
        for name, value in adapted.named_parameters()
        if not value.requires_grad
    }
    assert weights_digest(frozen) == weights_digest(base.state_dict()) == before
    assert not torch.equal(_velocity(adapted), _velocity(base))


@pytest.mark.parametrize("released", [False, True])
def test_weights_that_stay_as_they_are_lie_in_memory_once(released: bool):
    base = _network(released=released)
    own = {value.data_ptr() for value in base.parameters()}
    adapted = with_adapter(base, RANK, seed=0)

    for value in adapted.parameters():
        assert (value.data_ptr() in own) != value.requires_grad


def test_merged_weights_give_the_numbers_of_the_adapter(haar_store: Path):
    for released in (False, True):
        base = _network(released=released)
        adapted, adapter = _trained(haar_store, base)
        plain = merged(base, adapter)

        assert plain.state_dict().keys() == base.state_dict().keys()
        assert (_velocity(plain) - _velocity(adapted)).abs().max() < 1e-5


def test_unmerging_gives_the_base_back(haar_store: Path):
    base = _network(released=True)
    _, adapter = _trained(haar_store, base)
    back = unmerged(merged(base, adapter), adapter)

    assert (
        max(
            (value - back.state_dict()[name]).abs().max()
            for name, value in base.state_dict().items()
        )
        < 1e-6
    )


def test_our_extensions_of_a_released_network_are_trained_in_full():
    released = trained_weights(with_adapter(_network(released=True), RANK, seed=0))
    ours = trained_weights(with_adapter(_network(), RANK, seed=0))

    extensions = {name for name in _network().state_dict() if is_extension(name)}
    assert released.keys() - ours.keys() == extensions


def test_an_adapter_comes_back_from_its_folder(haar_store: Path, tmp_path: Path):
    package = _package(haar_store, tmp_path / "base", released=True)
    adapted, adapter = _trained(haar_store, package.network)
    save_adapter(tmp_path / "adapter", adapter)

    loaded = load_adapter(package, tmp_path / "adapter")

    assert loaded.provenance == adapter.provenance
    assert loaded.digest == weights_digest(loaded.network.state_dict())
    assert (_velocity(loaded.network) - _velocity(adapted)).abs().max() < 2e-3


def test_an_adapter_of_rank_16_of_the_tiny_network_is_under_a_megabyte(tmp_path: Path):
    base = fresh_network(PRESETS["tiny"], seed=0)
    settings = AdapterSettings(rank=16)
    weights = trained_weights(with_adapter(base, settings, seed=0))
    halves = {name: value.detach().half() for name, value in weights.items()}
    save_file(halves, tmp_path / "adapter.safetensors")

    assert (tmp_path / "adapter.safetensors").stat().st_size < 1e6


def test_an_adapter_of_another_base_is_refused(haar_store: Path, tmp_path: Path):
    package = _package(haar_store, tmp_path / "base")
    other = _package(haar_store, tmp_path / "other", seed=1)
    folder = _saved(haar_store, package, tmp_path / "adapter")

    with pytest.raises(MismatchError, match="another model"):
        load_adapter(other, folder)


def _write(folder: Path, change: dict[str, torch.Tensor]) -> None:
    """Put tensors into an adapter, with the digest that belongs to them."""
    tensors = load_file(folder / "adapter.safetensors") | change
    save_file(tensors, folder / "adapter.safetensors")
    provenance = json.loads((folder / "provenance.json").read_text())
    provenance["digest"] = weights_digest(tensors)
    (folder / "provenance.json").write_text(json.dumps(provenance))


def test_a_damaged_adapter_is_refused(haar_store: Path, tmp_path: Path):
    package = _package(haar_store, tmp_path / "base")
    for name, change, reason in (
        ("foreign", {"x": torch.zeros(1)}, "names and shapes"),
        ("shape", {"t_block.1.lora_A": torch.zeros(4, 31)}, "names and shapes"),
        ("infinite", {"t_block.1.lora_A": torch.full((4, 32), torch.inf)}, "finite"),
    ):
        folder = _saved(haar_store, package, tmp_path / name)
        _write(folder, change)
        with pytest.raises(PackageError, match=reason):
            load_adapter(package, folder)


def test_an_adapter_whose_files_do_not_fit_is_refused(haar_store: Path, tmp_path: Path):
    package = _package(haar_store, tmp_path / "base")
    folder = _saved(haar_store, package, tmp_path / "adapter")
    config = json.loads((folder / "config.json").read_text())
    for wrong, reason in (
        ({"rank": 5}, "names and shapes"),
        ({"rank": True}, "must hold"),
        ({"rank": 0}, "between 1 and 1024"),
        ({"format": "ctflow-fed adapter 2"}, "format"),
        ({"dropout": 1}, "must hold"),
    ):
        (folder / "config.json").write_text(json.dumps(config | wrong))
        with pytest.raises(PackageError, match=reason):
            load_adapter(package, folder)

    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "adapter.safetensors")
    tensors["t_block.1.lora_B"] += 1
    save_file(tensors, folder / "adapter.safetensors")
    with pytest.raises(PackageError, match="digest"):
        load_adapter(package, folder)


def _run(store: Path, package: ModelPackage, out: Path, steps: int) -> Path:
    return train(
        package.network,
        LatentStore.open(store),
        out,
        SETTINGS,
        steps=steps,
        seed=0,
        parent=package,
        adapter=RANK,
    )


def test_a_run_of_an_adapter_in_two_parts_gives_that_of_one(
    haar_store: Path, tmp_path: Path
):
    package = _package(haar_store, tmp_path / "base", released=True)
    whole = load_package(_run(haar_store, package, tmp_path / "whole", 4))
    _run(haar_store, package, tmp_path / "parts", 2)
    resumed = load_package(_run(haar_store, package, tmp_path / "parts", 4))

    assert resumed.digest == whole.digest != package.digest
    assert whole.provenance.parent == package.digest
    assert load_adapter(package, tmp_path / "parts" / "adapter").digest == whole.digest


def test_the_checkpoint_of_an_adapter_holds_only_what_is_trained(
    haar_store: Path, tmp_path: Path
):
    package = _package(haar_store, tmp_path / "base")
    _run(haar_store, package, tmp_path / "run", 1)

    with safe_open(tmp_path / "run" / "checkpoint.safetensors", "pt") as file:
        names = set(file.keys())
    assert len(names) == 4 * 2 * 10  # weights, average, two moments of A and B
    assert all(".lora_" in name for name in names)


def test_a_checkpoint_of_another_rank_is_refused(haar_store: Path, tmp_path: Path):
    package = _package(haar_store, tmp_path / "base")
    _run(haar_store, package, tmp_path / "run", 1)

    with pytest.raises(MismatchError, match="another"):
        train(
            package.network,
            LatentStore.open(haar_store),
            tmp_path / "run",
            SETTINGS,
            steps=2,
            seed=0,
            parent=package,
            adapter=AdapterSettings(rank=2, alpha=8),
        )


def test_an_adapter_needs_a_model_to_begin_with(haar_store: Path, tmp_path: Path):
    with pytest.raises(SettingsError, match="--init"):
        train(
            _network(),
            LatentStore.open(haar_store),
            tmp_path / "run",
            SETTINGS,
            steps=1,
            seed=0,
            adapter=RANK,
        )


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"rank": 2048}, {"alpha": 0}])
def test_settings_of_an_adapter_out_of_range_are_refused(wrong: dict[str, int]):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        AdapterSettings(**wrong)


@pytest.mark.parametrize("shipped", [False, True])
def test_the_commands_train_an_adapter_and_merge_it(
    haar_store: Path, tmp_path: Path, shipped: bool
):
    out, base = tmp_path / "run", "base" if shipped else str(tmp_path / "base")
    _package(haar_store, tmp_path / "base")
    options = ["--steps", "1", "--batch-clips", "1", "--adapter-rank", "2"]
    place = ["--init", base, "--out", str(out)]

    trained = CliRunner().invoke(cli, ["train", str(haar_store), *place, *options])
    merge = ["model", "merge", base, str(out / "adapter"), str(tmp_path / "m")]
    merging = CliRunner().invoke(cli, merge)
    again = CliRunner().invoke(cli, merge)

    assert trained.exit_code == merging.exit_code == 0, trained.output
    assert f"adapter: {out / 'adapter'}" in trained.output
    expected = load_package(out / "model").digest
    assert load_package(tmp_path / "m").digest == expected
    assert isinstance(again.exception, SettingsError)


def test_without_peft_an_adapter_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "peft", None)

    with pytest.raises(MissingExtraError, match=r"ctflow-fed\[adapters\]"):
        with_adapter(_network(), RANK, seed=0)


def test_training_is_imported_without_peft():
    code = "import sys, ctflow_fed.training; print('peft' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )

    assert result.stdout == "False\n"
