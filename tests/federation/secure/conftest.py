import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation.secure import (
    SecureServer,
    SecureSite,
    Terms,
    smallest_threshold,
)

MANIFEST = {"bias": (5,), "scale": (), "weight": (40, 30)}


class Consortium:
    def __init__(self, folder, count, **changes):
        self.names = [f"site-{number}" for number in range(count)]
        self.keys = {
            name: ec.generate_private_key(ec.SECP384R1()) for name in self.names
        }
        self.registry = {name: key.public_key() for name, key in self.keys.items()}
        values = {
            "order": "0" * 64,
            "attempt": 1,
            "shares": {
                name: (number + 1) / (count * (count + 1) / 2)
                for number, name in enumerate(self.names)
            },
            "manifest": MANIFEST,
            "bound": 1.0,
            "threshold": smallest_threshold(count),
        }
        self.terms = Terms(**(values | changes))
        self.server = SecureServer(self.terms, self.identify)
        self.folder = folder
        rng = np.random.default_rng(0)
        self.updates = {
            name: {
                key: np.asarray(rng.normal(0, 0.2, shape), np.float32)
                for key, shape in self.terms.manifest.items()
            }
            for name in self.names
        }

    def site(self, name, **changes):
        """A new process at the site: it knows only what is in its folder."""
        return SecureSite(
            name,
            self.keys[name],
            f"certificate of {name}".encode(),
            self.identify,
            self.terms,
            self.folder / name,
            **changes,
        )

    def identify(self, site, certificate):
        """A consortium whose certificates are as good as they say."""
        if certificate != f"certificate of {site}".encode():
            raise UpdateError("expected a certificate of the consortium")
        return self.registry[site]

    def advertise(self, names):
        wires = {name: self.site(name).advertise() for name in names}
        return self.server.advertised(wires)

    def share(self, names, wires):
        return self.server.relayed(
            {name: self.site(name).share(wires) for name in names}
        )

    def masked(self, names, inbox):
        return {
            name: self.site(name).mask(self.updates[name], inbox[name])
            for name in names
        }

    def up_to_masked(self, names=None):
        names = names or self.names
        return self.masked(names, self.share(names, self.advertise(names)))

    def close(self, masked):
        for name, arrays in masked.items():
            self.server.add(name, arrays)
        return self.server.close()

    def reveal(self, survivors):
        words = {name: self.site(name).confirm(survivors) for name in survivors}
        words = self.server.agreed(words)
        return {name: self.site(name).reveal(words) for name in survivors}

    def mean(self, survivors):
        """The plain weighted mean, clipped, in float64."""
        share = sum(self.terms.shares[name] for name in survivors)
        return {
            key: sum(
                self.terms.shares[name]
                * np.clip(self.updates[name][key].astype(np.float64), -1, 1)
                for name in survivors
            )
            / share
            for key in self.terms.manifest
        }


@pytest.fixture
def consortium(tmp_path):
    return lambda count, **changes: Consortium(tmp_path, count, **changes)
