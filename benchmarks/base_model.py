"""Train the base model that is shipped: preset tiny, on public phantoms.

No patient is in it, so it may go to every hospital of a federation before it begins.
It is trained as `benchmarks/generation.py` trains ours, on volumes of more slices as
well. The same command resumes; `make base-model` runs it and puts the package, in
float16, into the wheel.

    python benchmarks/base_model.py --out runs/base
"""

import argparse
import time
from pathlib import Path

from phantoms import public_store
from recipes import STUDIES, train_ours

from ctflow_fed.model import PRESETS, fresh_network, load_package, save_package
from ctflow_fed.training import evaluate_loss

LONGER = {128: 200, 256: 40}
"""How many phantoms of how many slices there are beside those of the bench."""


def main() -> None:
    """Draw the phantoms, train, and say how well the result does on new ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/base"))
    parser.add_argument("--preset", default="tiny", choices=list(PRESETS))
    parser.add_argument("--steps", type=int, default=9000)
    options = parser.parse_args()

    began = time.monotonic()
    folder = train_ours(
        options.out,
        preset=options.preset,
        steps=options.steps,
        seed=0,
        studies=STUDIES | LONGER,
    )
    seconds = time.monotonic() - began
    unseen = public_store(options.out / "unseen", {48: 32}, seed=2027)
    fresh = evaluate_loss(fresh_network(PRESETS[options.preset], 0), unseen, seed=0)
    package = load_package(folder)
    trained = evaluate_loss(package.network, unseen, seed=0)
    shipped = options.out / "base"
    shipped.mkdir(exist_ok=True)
    save_package(shipped, package.network.half(), package.provenance)
    print(f"{seconds:.0f} s; loss on unseen phantoms {fresh:.4f} -> {trained:.4f}")
    print(shipped)


if __name__ == "__main__":
    main()
