"""The server of a secure round: it relays, adds and takes masks off the sum."""

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation.payload import check_manifest
from ctflow_fed.federation.secure.advertisement import (
    Advertisement,
    Identify,
    Wire,
    agreement,
    commitment_of,
    read_advertisements,
)
from ctflow_fed.federation.secure.masks import add_mask, derive, pair_key, public_of
from ctflow_fed.federation.secure.quantise import dequantise
from ctflow_fed.federation.secure.shamir import SHARE_BYTES, combine
from ctflow_fed.federation.secure.terms import LEAST_IN_SUM, Terms

__all__ = ["SecureServer"]

SEALED_BYTES = 12 + 2 * SHARE_BYTES + 16  # nonce, two shares, tag


class SecureServer:
    """The part of the server in one secure round; it holds one sum and no update.

    What sites send goes in by their names, as the connection gives them. An
    ``UpdateError`` means that the answer is not counted; the round goes on without it.
    """

    def __init__(self, terms: Terms, identify: Identify) -> None:
        self.terms, self._identify = terms, identify
        self._advertised: dict[str, Advertisement] = {}
        self._shared: set[str] = set()
        self._survivors: list[str] = []
        self._closed = False
        self._total = {
            name: np.zeros(shape, np.uint32) for name, shape in terms.manifest.items()
        }

    def check_keys(self, site: str, wire: Wire) -> None:
        """Refuse what a site advertises unless it has signed it."""
        read_advertisements({site: wire}, self._identify, self.terms)

    def advertised(self, wires: Mapping[str, Wire]) -> Mapping[str, Wire]:
        """Step 0: check what the sites advertise, and return what each is to get."""
        self._advertised = read_advertisements(wires, self._identify, self.terms)
        self._check_enough(self._advertised)
        return wires

    def relayed(
        self, sealed: Mapping[str, Mapping[str, bytes]]
    ) -> dict[str, dict[str, bytes]]:
        """Step 1: return for each site what the others shared with it."""
        for site, row in sealed.items():
            self.check_row(site, row)
        self._check_enough(sealed)
        self._shared = set(sealed)
        return {
            receiver: {
                sender: row[receiver]
                for sender, row in sealed.items()
                if sender != receiver
            }
            for receiver in sealed
        }

    def add(self, site: str, masked: Mapping[str, NDArray[np.uint32]]) -> None:
        """Step 2: add the masked update of a site to the sum."""
        if self._closed or site not in self._shared or site in self._survivors:
            raise UpdateError(
                "expected one masked update of a site that shared its secrets, before "
                "the sum was closed, got another; it is not counted"
            )
        check_manifest(
            self.terms.manifest,
            {name: tuple(value.shape) for name, value in masked.items()},
        )
        if any(value.dtype != np.uint32 for value in masked.values()):
            raise UpdateError(
                "expected masked arrays of uint32, got others; "
                "install the same version everywhere"
            )
        for name, value in masked.items():
            np.add(self._total[name], value, out=self._total[name])
        self._survivors.append(site)

    def close(self) -> tuple[str, ...]:
        """End step 2: return the sites in the sum, whom steps 3 and 4 ask."""
        self._check_enough(self._survivors)
        self._closed = True
        return tuple(sorted(self._survivors))

    def agreed(self, signatures: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Step 3: check that the survivors agree on who they are; return their word."""
        keys = {
            site: self._identify(site, self._advertised[site].certificate)
            for site in self._survivors
        }
        return agreement(signatures, self._survivors, keys, self.terms)

    def unmask(
        self, revealed: Mapping[str, Mapping[str, bytes]]
    ) -> dict[str, NDArray[np.float32]]:
        """Step 4: return the mean of the updates in the sum, by the sites' shares.

        ``revealed`` is the answer of each survivor, at least the threshold of them.
        """
        self._check_revealed(revealed)
        secrets = {site: self._secret(site, revealed) for site in sorted(self._shared)}
        total = {name: value.copy() for name, value in self._total.items()}
        for site, secret in secrets.items():
            for key, sign in self._masks_of(site, secret):
                for name, value in total.items():
                    add_mask(value, key, name, self.terms, sign=sign)
        share = sum(self.terms.shares[site] for site in self._survivors)
        return {
            name: dequantise(value, share, self.terms) for name, value in total.items()
        }

    def _secret(self, site: str, revealed: Mapping[str, Mapping[str, bytes]]) -> bytes:
        """Return the seed of a survivor or the mask key of another site, verified."""
        points = {self.terms.point(each): revealed[each][site] for each in revealed}
        secret = combine(dict(sorted(points.items())[: self.terms.threshold]))
        own = self._advertised[site]
        right = (
            commitment_of(secret) == own.commitment
            if site in self._survivors
            else public_of(secret) == own.mask
        )
        if not right:
            raise UpdateError(
                f"expected shares of the secret of {site}, got others; "
                "repeat the round as another attempt"
            )
        return secret

    def _masks_of(self, site: str, secret: bytes) -> Iterator[tuple[bytes, int]]:
        """Yield the keys of a site's masks in the sum, and with which sign to add.

        Of a survivor that is its own mask, of another those that survivors share
        with it.
        """
        if site in self._survivors:
            yield derive(secret, self.terms.context("self", site)), -1
            return
        for peer in self._survivors:
            context = self.terms.context("pair", *sorted((site, peer)))
            key = pair_key(secret, self._advertised[peer].mask, context)
            yield key, -1 if peer < site else 1

    def _check_enough(self, sites: Collection[str]) -> None:
        needed = max(LEAST_IN_SUM, self.terms.threshold)
        if len(sites) < needed:
            raise UpdateError(
                f"expected answers of at least {needed} sites, got {len(sites)}; "
                "repeat the round when more sites are there"
            )

    def check_row(self, site: str, row: Mapping[str, bytes]) -> None:
        """Refuse what a site shares unless it is one length for each other site."""
        others = set(self._advertised) - {site}
        if (
            site not in self._advertised
            or set(row) != others
            or any(len(each) != SEALED_BYTES for each in row.values())
        ):
            raise UpdateError(
                f"expected {SEALED_BYTES} bytes for each other site that advertised "
                "keys, got another answer; it is not counted"
            )

    def check_shares(self, site: str, row: Mapping[str, bytes]) -> None:
        """Refuse what a site reveals unless it is a share of each that shared any."""
        if set(row) != self._shared:
            raise UpdateError(
                f"expected a share of each site that shared its secrets from {site}, "
                "got others; they are not counted"
            )

    def _check_revealed(self, revealed: Mapping[str, Mapping[str, bytes]]) -> None:
        if not self._closed or not set(revealed) <= set(self._survivors):
            raise UpdateError(
                "expected shares from the sites in the closed sum, got others; "
                "they are not counted"
            )
        for site, row in revealed.items():
            self.check_shares(site, row)
        if len(revealed) < self.terms.threshold:
            raise UpdateError(
                f"expected shares from {self.terms.threshold} sites, got "
                f"{len(revealed)}; repeat the round as another attempt"
            )
