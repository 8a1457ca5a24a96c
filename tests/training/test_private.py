import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from dp_accounting.dp_event import (
    GaussianDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.pld import PLDAccountant
from opacus import GradSampleModule

from ctflow_fed.cli import cli
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import SettingsError, StoreError
from ctflow_fed.model import (
    FMvT,
    FMvTConfig,
    ModelPackage,
    fresh_network,
    load_package,
    save_package,
)
from ctflow_fed.model.fmvt import is_extension
from ctflow_fed.training import (
    AdapterSettings,
    NoisySteps,
    PrivacyLedger,
    PrivacySettings,
    TrainSettings,
    describe,
    epsilon_of,
    fit_privately,
    load_adapter,
    train,
)
from ctflow_fed.training.adapters import (
    down_matrices,
    up_matrices,
    with_up_matrices,
    zero_changes,
)
from ctflow_fed.training.batch import draw_known
from ctflow_fed.training.gaussian import clipped, noisy, poisson_sample
from ctflow_fed.training.optimizer import optimizer_of
from ctflow_fed.training.private import Descent, PatientDraws, patient_gradient
from ctflow_fed.training.randomness import SystemRandomness
from ctflow_fed.training.step import batch_loss, trained_weights
from ctflow_fed.weights import weights_digest

SMALL = FMvTConfig(layers=1, features=32, heads=2)
RANK = AdapterSettings(rank=4, alpha=8)
SETTINGS = TrainSettings(
    batch_clips=2, max_frames=16, warmup_steps=0, learning_rate=1e-2
)
PRIVACY = PrivacySettings(epsilon=100.0)


def _copied(store: LatentStore, folder: Path, patients: list[str]) -> LatentStore:
    """Copy a store's studies, each of the patient of its place in ``patients``."""
    weights = store.channel_weights.tolist()
    copy = LatentStore.create(folder, store.header, store.edges, weights)
    records = sorted(store.records, key=lambda record: record.study_id)
    for record, patient in zip(records, patients, strict=False):
        copy.put(
            record.study_id,
            store.slices(record.study_id, 0, record.slices),
            store.tokens(record.study_id),
            spacing=record.spacing,
            labels=record.labels,
            patient=patient,
        )
    return copy


@pytest.fixture(scope="module")
def store(haar_store: Path, tmp_path_factory: pytest.TempPathFactory) -> LatentStore:
    """Three studies, each of a patient of its own."""
    folder = tmp_path_factory.mktemp("private")
    return _copied(LatentStore.open(haar_store), folder, ["a", "b", "c"])


def _base() -> FMvT:
    """Return a network whose last layers are not zero, as if it were trained."""
    network = fresh_network(SMALL, 0)
    generator = torch.Generator().manual_seed(0)
    for name, value in network.named_parameters():
        if not is_extension(name):
            value.data += 0.05 * torch.randn(value.shape, generator=generator)
    return network


def _adapted() -> FMvT:
    base = _base()
    changes = {**down_matrices(base, RANK.rank, 0), **zero_changes(base, RANK.rank)}
    return with_up_matrices(base, RANK, changes, up_matrices(base, RANK.rank))


def _sum(network: FMvT, store: LatentStore, clip: float) -> torch.Tensor:
    """Return the sum of the clipped gradients of all patients, before any noise."""
    draws = PatientDraws(seed=0)
    return torch.stack(
        [
            clipped(
                patient_gradient(network, each, SETTINGS, draws.generator(3, each))[1],
                clip,
            )
            for each in store.by_patient()
        ]
    ).sum(0)


def test_the_ledger_says_what_dp_accounting_says(tmp_path: Path):
    ledger = PrivacyLedger(tmp_path / "privacy.json", PRIVACY)
    for rate, steps in ((0.05, 40), (0.05, 60), (0.2, 10)):
        ledger.book(NoisySteps(1.1, rate, steps))

    accountant = PLDAccountant()
    for rate, steps in ((0.05, 100), (0.2, 10)):
        step = PoissonSampledDpEvent(rate, GaussianDpEvent(1.1))
        accountant.compose(SelfComposedDpEvent(step, steps))
    expected = accountant.get_epsilon(1e-5)
    saved = json.loads((tmp_path / "privacy.json").read_text())
    assert [event["steps"] for event in saved["events"]] == [100, 10]
    assert ledger.epsilon() == saved["epsilon"] == pytest.approx(expected, abs=1e-9)
    again = PrivacyLedger(tmp_path / "privacy.json", PRIVACY)
    assert again.events == ledger.events


def test_the_budget_allows_the_last_step_within_it_and_no_more(tmp_path: Path):
    ledger = PrivacyLedger(tmp_path / "privacy.json", PrivacySettings(epsilon=3.0))
    ledger.book(NoisySteps(1.0, 0.1, 5))
    allowed = ledger.affordable(NoisySteps(1.0, 0.1, 500))

    def spent(steps: int) -> float:
        return epsilon_of([NoisySteps(1.0, 0.1, 5 + steps)], 1e-5)

    assert 0 < allowed < 500
    assert spent(allowed) <= 3.0 < spent(allowed + 1)
    assert ledger.affordable(NoisySteps(1.0, 0.1, allowed)) == allowed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": "another", "events": []}',
        '{"format": "ctflow-fed privacy 1", "events": [{"steps": 1}]}',
        '{"format": "ctflow-fed privacy 1", "events": '
        '[{"noise_multiplier": 1, "rate": 2, "steps": 1}]}',
        '{"format": "ctflow-fed privacy 1", "events": '
        '[{"noise_multiplier": NaN, "rate": 0.1, "steps": 1}]}',
    ],
)
def test_a_damaged_ledger_is_refused(tmp_path: Path, text: str):
    (tmp_path / "privacy.json").write_text(text)

    with pytest.raises(StoreError, match=r"privacy\.json"):
        PrivacyLedger(tmp_path / "privacy.json", PRIVACY)


def test_a_clipped_gradient_keeps_its_direction_and_no_more_than_the_norm():
    gradient = torch.tensor([3.0, 4.0])

    assert clipped(gradient, 1.0).tolist() == pytest.approx([0.6, 0.8])
    assert clipped(gradient, 10.0).tolist() == [3.0, 4.0]
    assert clipped(torch.zeros(2), 1.0).tolist() == [0.0, 0.0]
    assert clipped(torch.tensor([math.inf, 1.0]), 1.0).tolist() == [0.0, 0.0]
    assert clipped(torch.tensor([math.nan, 1.0]), 1.0).tolist() == [0.0, 0.0]


def test_removing_a_patient_moves_the_sum_by_that_patient_alone(
    store: LatentStore, tmp_path: Path
):
    network = _adapted()
    parts = {each.records[0].patient: each for each in store.by_patient()}
    whole = _sum(network, store, 0.01)
    # The longest volume goes: what is drawn of the others must not look at it.
    smaller = _copied(store, tmp_path, ["a", "b"])
    moved = whole - _sum(network, smaller, 0.01)

    draws = PatientDraws(seed=0)
    gone = patient_gradient(
        network, parts["c"], SETTINGS, draws.generator(3, parts["c"])
    )[1]
    assert torch.allclose(moved, clipped(gone, 0.01), atol=1e-12)
    assert moved.norm() == pytest.approx(0.01)  # it was clipped


def test_the_studies_of_one_patient_count_once(store: LatentStore, tmp_path: Path):
    patients = _copied(store, tmp_path, ["a", "b", "a"]).by_patient()

    assert sorted(len(each.records) for each in patients) == [1, 2]
    assert all(len({r.patient for r in each.records}) == 1 for each in patients)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_gradients_are_those_of_opacus_where_it_counts_clips_and_not_frames(
    store: LatentStore,
):
    network = _adapted()
    one = replace(SETTINGS, batch_clips=1)
    batch = draw_known(store, one, torch.Generator().manual_seed(0))
    weights = trained_weights(network)

    def loss() -> torch.Tensor:
        generator = torch.Generator().manual_seed(9)
        scale = store.channel_weights
        return batch_loss(network, batch, scale, SETTINGS, generator).sum()

    expected = torch.autograd.grad(loss(), list(weights.values()))
    GradSampleModule(network, strict=False, loss_reduction="sum")  # hooks it
    loss().backward()

    samples = {name: value.grad_sample for name, value in weights.items()}
    folded = {name for name, each in samples.items() if len(each) != 1}
    assert folded == {name for name in samples if ".attn" in name}
    for (name, sample), own in zip(samples.items(), expected, strict=True):
        apart = (sample.float().sum(0) - own).norm() / own.norm()
        assert apart < 0.02, name  # Opacus sums in bfloat16 where that is computed in


def test_the_noise_has_the_stated_deviation():
    settings = PrivacySettings(epsilon=1.0, noise_multiplier=1.5, clip=0.2)
    noise = noisy(torch.zeros(200_000), settings)
    other = noisy(torch.zeros(200_000), settings)

    assert noise.std().item() == pytest.approx(1.5 * 0.2, rel=0.01)
    assert abs(noise.mean().item()) < 0.3 * 5 / math.sqrt(200_000)
    assert abs(torch.corrcoef(torch.stack([noise, other]))[0, 1]) < 0.02


def test_the_systems_normal_numbers_are_normal():
    numbers = np.sort(SystemRandomness().standard_normal(100_000))
    normal = torch.special.ndtr(torch.from_numpy(numbers)).numpy()

    # Kolmogorov and Smirnov: a distance that is passed once in a million times.
    assert np.abs(normal - np.linspace(0, 1, 100_000)).max() < 2.7 / math.sqrt(100_000)


def test_each_patient_is_sampled_at_the_rate():
    counts = [len(poisson_sample(range(1000), 0.1)) for _ in range(200)]

    mean, deviation = 100, math.sqrt(1000 * 0.1 * 0.9)
    assert np.mean(counts) == pytest.approx(mean, abs=5 * deviation / math.sqrt(200))
    assert np.std(counts) == pytest.approx(deviation, rel=0.3)  # no fixed size
    assert poisson_sample(range(10), 1.0) == list(range(10))


def test_a_private_fit_moves_b_alone_and_books_what_it_took(
    store: LatentStore, tmp_path: Path
):
    network = _adapted()
    before = {name: value.clone() for name, value in network.named_parameters()}
    ledger = PrivacyLedger(tmp_path / "privacy.json", PRIVACY)

    first = fit_privately(network, store, SETTINGS, ledger, steps=2, seed=0)
    second = fit_privately(
        network, store, SETTINGS, ledger, steps=1, seed=0, round_number=1
    )

    moved = {
        name
        for name, value in network.named_parameters()
        if not torch.equal(value, before[name])
    }
    assert moved == {name for name in before if ".lora_B." in name}
    assert (first.steps, second.steps) == (2, 1)
    assert (first.is_spent, second.is_spent) == (False, False)
    assert ledger.events == (NoisySteps(1.0, 2 / 3, 3),)
    assert second.epsilon == epsilon_of(ledger.events, 1e-5) > first.epsilon


def test_a_step_that_samples_nobody_makes_noise_all_the_same():
    network = _adapted()
    start = weights_digest(trained_weights(network))
    optimizer = optimizer_of(trained_weights(network), SETTINGS)
    descent = Descent(network, optimizer, SETTINGS, PRIVACY)

    assert math.isnan(descent.take(0, [], PatientDraws(seed=0)))
    assert weights_digest(trained_weights(network)) != start


def _package(store: LatentStore, folder: Path) -> ModelPackage:
    save_package(folder, _base(), describe(store, steps=0, seed=0))
    return load_package(folder)


def _run(
    store: LatentStore,
    package: ModelPackage,
    out: Path,
    steps: int,
    privacy: PrivacySettings = PRIVACY,
) -> ModelPackage:
    return load_package(
        train(
            package.network,
            store,
            out,
            SETTINGS,
            steps=steps,
            seed=0,
            parent=package,
            adapter=RANK,
            privacy=privacy,
        )
    )


def test_training_ends_with_the_budget_and_then_does_nothing(
    store: LatentStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    package = _package(store, tmp_path / "base")
    budget = replace(PRIVACY, epsilon=epsilon_of([NoisySteps(1.0, 2 / 3, 3)], 1e-5))
    model = _run(store, package, tmp_path / "run", 10, budget)
    again = _run(store, package, tmp_path / "run", 10, budget)

    ledger = PrivacyLedger(tmp_path / "run" / "privacy.json", budget)
    assert ledger.steps == model.provenance.steps == 3
    assert model.provenance.epsilon == pytest.approx(ledger.epsilon())
    assert model.provenance.delta == 1e-5
    assert again.digest == model.digest != package.digest
    assert "the privacy budget ends training after step 3 of 10" in caplog.text
    assert load_adapter(package, tmp_path / "run" / "adapter").digest == model.digest
    assert "epsilon" in (tmp_path / "run" / "model" / "card.md").read_text()


def test_a_killed_run_never_counts_less_than_it_spent(
    store: LatentStore, tmp_path: Path
):
    package, out = _package(store, tmp_path / "base"), tmp_path / "run"
    _run(store, package, out, 2)
    saved = (out / "checkpoint.safetensors").read_bytes()
    _run(store, package, out, 5)
    # As a kill leaves it: three steps are booked, none of them is saved.
    (out / "checkpoint.safetensors").write_bytes(saved)
    model = _run(store, package, out, 5)

    assert model.provenance.steps == 5
    assert PrivacyLedger(out / "privacy.json", PRIVACY).steps == 5 + 3
    (out / "privacy.json").unlink()
    with pytest.raises(StoreError, match=r"privacy\.json"):
        _run(store, package, out, 6)


def test_steps_are_booked_before_they_are_taken(store: LatentStore, tmp_path: Path):
    first = store.by_patient()[0].records[0]
    broken = _copied(store, tmp_path / "store", ["a", "b", "c"])
    (tmp_path / "store" / "studies" / f"{first.study_id}.safetensors").unlink()
    ledger = PrivacyLedger(tmp_path / "privacy.json", PRIVACY)
    settings = replace(SETTINGS, batch_clips=3)

    with pytest.raises(StoreError, match="absent"):
        fit_privately(_adapted(), broken, settings, ledger, steps=1, seed=0)

    assert PrivacyLedger(tmp_path / "privacy.json", PRIVACY).steps == 1


def test_private_training_needs_patients_an_adapter_and_a_small_delta(
    haar_store: Path, store: LatentStore, tmp_path: Path
):
    ledger = PrivacyLedger(tmp_path / "privacy.json", PRIVACY)
    unknown = LatentStore.open(haar_store)
    with pytest.raises(StoreError, match="column patient"):
        fit_privately(_adapted(), unknown, SETTINGS, ledger, steps=1, seed=0)
    many = replace(SETTINGS, batch_clips=4)
    with pytest.raises(SettingsError, match="expects 4 patients"):
        fit_privately(_adapted(), store, many, ledger, steps=1, seed=0)
    with pytest.raises(SettingsError, match="adapter"):
        train(
            _base(),
            store,
            tmp_path / "run",
            SETTINGS,
            steps=1,
            seed=0,
            privacy=PRIVACY,
        )
    with pytest.raises(SettingsError, match="delta"):
        PrivacySettings(epsilon=1.0, delta=0.5)


def test_the_command_trains_privately_and_says_what_it_spent(
    store: LatentStore, tmp_path: Path
):
    _package(store, tmp_path / "base")
    options = ["--steps", "1", "--batch-clips", "2", "--adapter-rank", "2"]
    place = ["--init", str(tmp_path / "base"), "--out", str(tmp_path / "run")]
    command = ["train", str(store.folder), *place, *options]

    refused = CliRunner().invoke(cli, [*command, "--dp-noise", "2"])
    trained = CliRunner().invoke(
        cli, [*command, "--dp-noise", "2", "--dp-epsilon", "8"]
    )

    assert isinstance(refused.exception, SettingsError)
    assert trained.exit_code == 0, trained.output
    epsilon = epsilon_of([NoisySteps(2.0, 2 / 3, 1)], 1e-5)
    assert f"privacy: epsilon {epsilon:.2f} of 8 spent" in trained.output
