"""Four hospitals of phantoms that differ, and a coordinator with all of them, for real.

Real means: every one a process of its own from its kit, TLS and node authentication on,
as `ctflow federation` starts them.
"""

import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import torch
from phantoms import CODEC, Patient, patients, public_store
from processes import ENVIRONMENT, free_ports, process, until

from ctflow_fed.ct.codec import edges_of
from ctflow_fed.ct.phantom import HELD_OUT, HOSPITALS, Population
from ctflow_fed.ct.phantom.scanner import Scanner
from ctflow_fed.ct.report import HashingReportEncoder
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.deployment.consortium import Consortium
from ctflow_fed.deployment.provision import provision
from ctflow_fed.deployment.proxy import nginx_config
from ctflow_fed.federation import read_progress
from ctflow_fed.files import read_json, write_json
from ctflow_fed.shapes import HU

HARBOUR = Population(
    "harbour",  # emergency
    {
        "Consolidation": 0.5,
        "Pleural effusion": 0.35,
        "Lung opacity": 0.4,
        "Atelectasis": 0.4,
        "Medical material": 0.4,
    },
    Scanner(noise_hu=22, sharpness=0.1, slice_mm=5.0, field_mm=420, name="Harbour 256"),
)
RARE_FINDING = {"Pericardial effusion": 0.04}
"""What every site sees too little of, and its share of the patients."""

SITES = {
    name: replace(each, prevalence={**each.prevalence, **RARE_FINDING})
    for name, each in {**HOSPITALS, "harbour": HARBOUR}.items()
}
SEEDS = {site: 5001 + number for number, site in enumerate(SITES)}
HELD_OUT_SEED = 5100
SLICES = 32
START_SECONDS, JOB_SECONDS = 600.0, 3600.0


def site_stores(out: Path, studies: int) -> dict[str, Path]:
    """Return the folder of each site's store; each has its own patients and scanner."""
    for site, population in SITES.items():
        public_store(out / site, {SLICES: studies}, SEEDS[site], population)
    return {site: out / site for site in SITES}


def pooled_store(folder: Path, stores: Mapping[str, Path], studies: int) -> LatentStore:
    """Return a store with the studies of all sites: what no federation may have."""
    first = LatentStore.open(next(iter(stores.values())))
    side = first.header.height * CODEC.factor
    edges = edges_of(CODEC, side)
    pooled = LatentStore.create(folder, first.header, edges, CODEC.channel_weights)
    for site, path in stores.items():
        store = LatentStore.open(path)
        known = {each.study_id: each for each in store.records}
        for patient in patients({SLICES: studies}, SEEDS[site], SITES[site]):
            record = known[patient.name]
            if patient.name not in pooled:
                pooled.put(
                    patient.name,
                    store.slices(patient.name, 0, record.slices),
                    HashingReportEncoder().encode([patient.report]).tokens[0],
                    spacing=record.spacing,
                    labels=record.labels,
                )
    return pooled


def held_out_store(folder: Path, studies: int) -> tuple[LatentStore, list[Patient]]:
    """Return the store of a hospital that trains nothing, and its patients."""
    counts = {SLICES: studies}
    store = public_store(folder, counts, HELD_OUT_SEED, HELD_OUT)
    return store, list(patients(counts, HELD_OUT_SEED, HELD_OUT))


def volumes_of(store: LatentStore, known: Sequence[Patient]) -> list[HU]:
    """Decode real volumes; the embedded codec loses nothing."""
    decoded = (
        CODEC.decode(store.slices(patient.name, 0, patient.slices)) for patient in known
    )
    return [each.round().to(torch.int16).numpy() for each in decoded]


def run_for_real(
    folder: Path,
    stores: Mapping[str, Path],
    words: Sequence[str],
    policies: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> None:
    """Play one job of all sites; ``words`` are those of `ctflow federation run`.

    ``policies`` are changes of the site.toml of sites, line for line.
    """
    outside, inside, *own = _ports(folder / "ports.json", 2 + len(stores))
    consortium = Consortium("bench", "localhost", outside, tuple(stores))
    provision(consortium, folder / "consortium")
    config = folder / "consortium" / "server" / "nginx.conf"
    config.write_text(nginx_config(outside, inside))
    with ExitStack() as stack:
        command = ["ctflow", "federation", "server", str(folder / "consortium")]
        log = folder / "server.log"
        server = stack.enter_context(process(command, log))
        until(lambda: "the server is up" in log.read_text(), server, START_SECONDS)
        for (site, store), port in zip(stores.items(), own, strict=True):
            changes = policies.get(site, {})
            stack.enter_context(_site(folder, site, store, port, changes))
        job = ["ctflow", "federation", "run", "--server", str(folder / "consortium")]
        out = folder / "job"
        subprocess.run([*job, "--out", str(out), *words], check=True, env=ENVIRONMENT)
        until_played(out, server, JOB_SECONDS)


def until_played(job: Path, server: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Wait for the model of a job; where it ends before, say why and end too."""
    model, begun = job / "model" / "provenance.json", job / "run.json"

    def failure() -> str:
        return read_progress(job).ended if begun.exists() else ""

    until(lambda: model.exists() or bool(failure()), server, seconds)
    if failure():
        raise SystemExit(failure())


def _ports(path: Path, count: int) -> list[int]:
    """Return ports that were free when the folder was made, for kits name one."""
    if not path.exists():
        write_json(path, free_ports(count))
    ports: list[int] = read_json(path)
    return ports


@contextmanager
def _site(
    folder: Path, site: str, store: Path, port: int, changes: Mapping[str, str]
) -> Iterator[None]:
    """Run a site from its kit, after it has approved the programs."""
    kit = folder / site
    if not kit.exists():
        with tarfile.open(folder / "consortium" / "kits" / f"{site}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
        policy = (kit / "site.toml").read_text()
        for before, after in changes.items():
            policy = policy.replace(before, after)
        (kit / "site.toml").write_text(policy)
    approve = ["ctflow", "federation", "site", "approve", "--kit", str(kit)]
    subprocess.run(approve, check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    start = [str(kit / "start.sh"), str(store), "--port", str(port)]
    with process(start, folder / f"{site}.log"):
        yield


def can_be_real() -> bool:
    """Tell whether the reverse proxy is installed."""
    return shutil.which("nginx") is not None
