"""What secure aggregation costs at 20 MB: four real sites, of which one drops out.

    python benchmarks/secure.py --out runs/secure

The same round twice, plainly and with secure aggregation: an adapter of the base model
with 20 MB in float32; all sites and the coordinator are processes of their own with TLS
and node authentication. The fourth site lets no order to train pass: it has shared its
secrets by then, so that the others must take its masks off. Told are the seconds of the
round, and how far apart the two means are, in steps of the grid on which sites mask.
"""

import argparse
import json
import shutil
from pathlib import Path

from hospitals import SITES, run_for_real, site_stores
from safetensors.torch import load_file

from ctflow_fed.federation import read_ledger
from ctflow_fed.files import read_json, write_json
from ctflow_fed.model import package_folder
from server.secure import BOUND

RESULTS = Path(__file__).parent / "results" / "secure.json"
BASE = package_folder("base")
RANK = 322  # 20 MB in float32
STUDIES = 6
GRID = BOUND / 2**31
STATE = Path("rounds", "0001", "server", "weights.safetensors")  # as float32
WORDS = {
    **{"--rounds": "1", "--steps": "1", "--batch-clips": "1", "--min-sites": "3"},
    **{"--init": str(BASE), "--adapter-rank": str(RANK)},
}


def main() -> None:
    """Play both jobs and print what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/secure"))
    out = parser.parse_args().out.resolve()
    stores = site_stores(out / "sites", STUDIES)
    words = [word for pair in WORDS.items() for word in pair]
    digest = read_json(BASE / "provenance.json")["digest"]
    known = {"base_models = []": f'base_models = ["{digest}"]'}
    policies = dict.fromkeys(SITES, known)
    policies["harbour"] = {**known, "rounds = 1000": "rounds = 0"}
    for name, more in (("plain", ()), ("secure", ("--secure-aggregation",))):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir()
        run_for_real(out / name, stores, [*words, *more], policies)
    result = compared(out / "plain" / "job", out / "secure" / "job")
    write_json(RESULTS, result)
    print(json.dumps(result, indent=2))


def compared(plain: Path, secure: Path) -> dict[str, object]:
    """Return what the rounds of two jobs took, and how their means differ."""
    (open_round,), (secure_round,) = (read_ledger(e).records for e in (plain, secure))
    before, after = (load_file(job / STATE) for job in (plain, secure))
    furthest = max(float((after[n] - before[n]).abs().max()) for n in before)
    longest = max(float(each.abs().max()) for each in before.values())
    return {
        "megabytes": round(open_round.received / len(open_round.slices) / 1e6, 1),
        "sites_in_the_mean": [len(e.slices) for e in (open_round, secure_round)],
        "refused": secure_round.refused,
        "plain_seconds": open_round.seconds,
        "secure_seconds": secure_round.seconds,
        "extra_seconds": round(secure_round.seconds - open_round.seconds, 1),
        "attempts": secure_round.attempts,
        "furthest_apart_in_steps": round(furthest / GRID, 2),
        "largest_change_in_steps": round(longest / GRID),
    }


if __name__ == "__main__":
    main()
