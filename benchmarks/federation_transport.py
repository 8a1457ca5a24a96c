"""What a round costs at half a billion weights: seconds, bytes and memory.

    python benchmarks/federation_transport.py --out runs/transport

A transport benchmark: weights are random, and a random step stands in for training.
All else is real: coordinator and sites are processes with TLS and node authentication
behind nginx, each site with its launcher and its gate. Each row plays two rounds; what
counts is the second, in which only a change travels, for the first brings all weights
to the sites. Against it stands plain HTTPS: the same bytes through the same nginx to
and from as many clients at once, files to files. A site's step without a federation
reads the weights, takes the random step and writes them, in a process of its own.

Last comes a round of Flower's own FedAvg with one record as large as int8's.
Rows that are in the results are not measured again. One of four sites needs some 50 GB
of disk, which are free again when it has ended.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hospitals import until_played
from phantoms import TAUGHT, public_store
from processes import ENVIRONMENT, MemoryWatch, free_ports, process, until
from stock_flower import stock_round
from transport_peers import memory_costs, plain_seconds, step_alone

from ctflow_fed.deployment.bundle import programs_folder, write_app
from ctflow_fed.deployment.consortium import Consortium
from ctflow_fed.deployment.environment import flower_environment
from ctflow_fed.deployment.provision import provision
from ctflow_fed.deployment.proxy import nginx_config
from ctflow_fed.federation import FederationSettings, read_ledger
from ctflow_fed.files import read_json, write_json
from ctflow_fed.machine import cores
from ctflow_fed.model import PRESETS, fresh_network, save_package
from ctflow_fed.training import describe

RESULTS = Path(__file__).parent / "results" / "federation_transport.json"
HERE = Path(__file__).parent
KINDS: dict[str, dict[str, object]] = {
    "bfloat16": {"precision": "bfloat16"},
    "int8": {"precision": "int8"},
    "LoRA r16, bfloat16": {"precision": "bfloat16", "adapter_rank": 16},
}
STOCK_MB = 500
MACHINE = "the machine"
START_SECONDS, JOB_SECONDS = 240.0, 1800.0


def main() -> None:
    """Measure the rows that are not there yet, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/transport"))
    parser.add_argument("--preset", default="L", choices=list(PRESETS))
    parser.add_argument("--sites", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    results = read_json(given.results) if given.results.exists() else {}
    if MACHINE not in results:
        results[MACHINE] = memory_costs()
        write_json(given.results, results)
    init = model_package(given.out.resolve(), given.preset)
    for sites in given.sites:
        for kind in KINDS:
            name = f"{given.preset}, {kind}, {sites} sites"
            if name not in results:
                row = Row(given.out.resolve() / "row", init, given.preset, kind, sites)
                results[name] = row.measured()
                write_json(given.results, results)
                print(name, json.dumps(results[name], sort_keys=True), flush=True)
        name = f"{given.preset}, int8, the server's part alone, {sites} sites"
        if name not in results:
            results[name] = server_alone(given.out.resolve(), given.preset, sites)
            write_json(given.results, results)
            print(name, json.dumps(results[name], sort_keys=True), flush=True)
    name = f"Flower's FedAvg, {STOCK_MB} MB, 2 sites"
    if name not in results:
        results[name] = stock_round(given.out.resolve() / "stock", STOCK_MB, 2)
        write_json(given.results, results)
        print(name, json.dumps(results[name], sort_keys=True), flush=True)


def model_package(out: Path, preset: str) -> Path:
    """Return a package of random weights of a size, and make a store beside it."""
    store = public_store(out / "store", {16: 2}, 7, TAUGHT)
    folder = out / preset
    if not (folder / "provenance.json").exists():
        made = describe(store, steps=0, seed=0)
        save_package(folder, fresh_network(PRESETS[preset], seed=0), made)
    return folder


@dataclass(frozen=True)
class Row:
    """A job of two rounds by so many sites in ``folder``, which it has for itself.

    Adapters are of the package ``init``; all weights begin as fresh ones of a preset.
    """

    folder: Path
    init: Path
    preset: str
    kind: str
    sites: int

    @property
    def names(self) -> list[str]:
        """The names of the sites."""
        return [f"site{number}" for number in range(self.sites)]

    def measured(self) -> dict[str, object]:
        """Play the job, then transfer the same bytes plainly."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        alone = step_alone(
            self.init / "model.safetensors", self.folder / "alone", self.preset
        )
        try:
            return self._played(alone)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _played(self, alone: tuple[float, float]) -> dict[str, object]:
        programs = self._programs()
        outside, inside, *own = free_ports(2 + self.sites)
        consortium = Consortium("bench", "localhost", outside, tuple(self.names))
        place = self.folder / "consortium"
        provision(consortium, place)
        (place / "server" / "nginx.conf").write_text(nginx_config(outside, inside))
        with ExitStack() as stack:
            start = ["ctflow", "federation", "server", str(place)]
            log = self.folder / "server.log"
            server = stack.enter_context(process(start, log))
            until(lambda: "the server is up" in log.read_text(), server, START_SECONDS)
            roots = {"server": server.pid}
            for site, port in zip(self.names, own, strict=True):
                roots[site] = stack.enter_context(self._site(site, programs, port))
            began = time.monotonic()
            with MemoryWatch(roots) as watch:
                self._submit(programs, place / "server")
                until_played(self.folder / "job", server, JOB_SECONDS)
            seconds = time.monotonic() - began
            first, second = read_ledger(self.folder / "job").records
            share = (second.sent // self.sites, second.received // self.sites)
            kits = {site: self.folder / site for site in self.names}
            plain = plain_seconds(
                f"localhost:{outside}", place / "server", kits, *share
            )
        client = max(
            peaks.get("flwr-clientapp", 0.0)
            for group, peaks in watch.peaks.items()
            if group != "server"
        )
        return {
            "round_seconds": second.seconds,
            "plain_https_seconds": round(plain, 1),
            "first_round_seconds": first.seconds,
            "job_seconds": round(seconds, 1),
            "sent_mb": round(second.sent / 1e6, 1),
            "received_mb": round(second.received / 1e6, 1),
            "shards": second.shards,
            "first_sent_mb": round(first.sent / 1e6, 1),
            "refused": {**first.refused, **second.refused},
            "server_mb": round(watch.totals["server"]),
            "server_processes_mb": rounded(watch.peaks["server"]),
            "site_processes_mb": rounded(watch.peaks[self.names[0]]),
            "client_mb": round(client),
            "step_alone_mb": round(alone[1]),
            "step_alone_seconds": round(alone[0], 1),
            "model_float32_mb": round(
                (self.init / "model.safetensors").stat().st_size / 1e6
            ),
        }

    def _programs(self) -> Path:
        """Return a folder of the two programs, of which the site's trains at random."""
        programs = self.folder / "programs"
        for name in ("server", "client"):
            shutil.copytree(programs_folder() / name, programs / name)
        client = programs / "client"
        (client / "app.py").rename(client / "site.py")
        shutil.copyfile(HERE / "transport_client.py", client / "app.py")
        return programs

    @contextmanager
    def _site(self, site: str, programs: Path, port: int) -> Iterator[int]:
        """Run a site from its kit, which allows the programs and the model."""
        kit = self.folder / site
        with tarfile.open(
            self.folder / "consortium" / "kits" / f"{site}.tar.gz"
        ) as archive:
            archive.extractall(self.folder, filter="data")
        digest = read_json(self.init / "provenance.json")["digest"]
        policy = (kit / "site.toml").read_text()
        policy = policy.replace("minimum_studies = 5", "minimum_studies = 1")
        policy = policy.replace("base_models = []", f'base_models = ["{digest}"]')
        (kit / "site.toml").write_text(policy)
        approve = ["ctflow", "federation", "site", "approve", "--kit", str(kit)]
        subprocess.run([*approve, str(programs)], check=True, env=ENVIRONMENT)
        store = str(self.folder.parent / "store")
        share = f"OMP_NUM_THREADS={max(1, cores() // self.sites)}"
        start = ["env", share, str(kit / "start.sh"), store, "--port", str(port)]
        with process(start, self.folder / f"{site}.log") as started:
            yield started.pid

    def _submit(self, programs: Path, server: Path) -> None:
        settings = FederationSettings(
            out=str(self.folder / "job"),
            sites=tuple(self.names),
            nodes=str(server / "nodes"),
            preset=self.preset,
            init=str(self.init) if "adapter_rank" in KINDS[self.kind] else "",
            rounds=2,
            steps=1,
            min_sites=self.sites,
            **KINDS[self.kind],
        )
        app = write_app(self.folder, programs)
        config = settings.to_run_config()
        lines = [f"{key} = {json.dumps(config[key])}\n" for key in config]
        (self.folder / "job.toml").write_text("".join(lines))
        words = ["flwr", "run", str(app), "fed", "--run-config"]
        subprocess.run(
            [*words, str(self.folder / "job.toml")],
            env=flower_environment(server),
            check=True,
            stdout=subprocess.DEVNULL,
        )


def server_alone(out: Path, preset: str, sites: int) -> dict[str, object]:
    """Measure the server's part of a round in a process of its own."""
    words = [str(HERE / "transport_server.py"), str(out / "alone"), preset, str(sites)]
    done = subprocess.run(
        [sys.executable, *words], check=True, stdout=subprocess.PIPE, env=ENVIRONMENT
    )
    measured: dict[str, object] = json.loads(done.stdout)
    return measured


def rounded(values: dict[str, float]) -> dict[str, int]:
    """Return MB without fractions."""
    return {name: round(value) for name, value in sorted(values.items())}


if __name__ == "__main__":
    main()
