"""A site in a secure round: five steps, each once, each in a process of its own."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctflow_fed.errors import MismatchError, UpdateError
from ctflow_fed.federation.arrays import Arrays, manifest_of
from ctflow_fed.federation.payload import check_manifest
from ctflow_fed.federation.secure.advertisement import (
    Advertisement,
    Identify,
    PrivateKey,
    Wire,
    agreement,
    read_advertisements,
    set_digest,
    sign_survivors,
)
from ctflow_fed.federation.secure.masks import (
    add_mask,
    derive,
    open_sealed,
    pair_key,
    seal,
)
from ctflow_fed.federation.secure.quantise import quantise
from ctflow_fed.federation.secure.shamir import SHARE_BYTES, split
from ctflow_fed.federation.secure.state import (
    STEPS,
    SiteSecrets,
    read_state,
    write_state,
)
from ctflow_fed.federation.secure.terms import LEAST_IN_SUM, Terms

__all__ = ["SecureSite"]


class SecureSite:
    """The part of one site in one secure round.

    ``key`` is the private key of the site's node with its ``certificate``, by which
    the other sites know it; ``identify`` is how this one knows them. The secrets are in
    ``folder``, in a private file named by the terms, and each step is written there
    before its answer is returned: none is ever done twice, by whatever process. After
    the last step the file stays without secrets, so that the site never takes part in
    the same terms again. ``least`` is how many sites the site wants in a sum.
    """

    def __init__(
        self,
        site: str,
        key: PrivateKey,
        certificate: bytes,
        identify: Identify,
        terms: Terms,
        folder: Path,
        *,
        least: int = LEAST_IN_SUM,
    ) -> None:
        if site not in terms.shares:
            raise MismatchError("expected terms that name this site, got others")
        self.site, self.terms = site, terms
        self._key, self._certificate, self._identify = key, certificate, identify
        self._path = folder / f"{terms.digest}.json"
        self._needed = max(least, LEAST_IN_SUM, terms.threshold)

    def advertise(self) -> Wire:
        """Step 0: return the public keys of the site, signed.

        The secrets of other rounds are wiped, which came to nothing.
        """
        state = self._state("advertise")
        for path in self._path.parent.glob("*.json"):
            if path != self._path:
                write_state(path, SiteSecrets(step="over"))
        self._write(state, step="share")
        return self._own(state).signed(self.site, self._key, self.terms)

    def share(self, wires: Mapping[str, Wire]) -> dict[str, bytes]:
        """Step 1: return for each other site its shares of our secrets, sealed."""
        state = self._state("share")
        found = read_advertisements(wires, self._identify, self.terms)
        self._check_enough(found)
        if found[self.site] != self._own(state):
            raise UpdateError(
                "expected the keys that this site advertised, got others of it; "
                "repeat the round as another attempt"
            )
        points = [self.terms.point(site) for site in found]
        parts = [
            split(secret, points, self.terms.threshold)
            for secret in (state.mask_secret, state.seed)
        ]
        rows = {
            site: [part[self.terms.point(site)] for part in parts] for site in found
        }
        state = self._write(
            state,
            step="mask",
            advertisements={site: list(each) for site, each in found.items()},
            received={self.site: rows[self.site]},
        )
        return {
            site: seal(*self._channel(state, self.site, site, b"".join(rows[site])))
            for site in found
            if site != self.site
        }

    def mask(
        self, arrays: Arrays, sealed: Mapping[str, bytes]
    ) -> dict[str, NDArray[np.uint32]]:
        """Step 2: return the update, masked; ``sealed`` is what each other site shared.

        Only finite arrays of the manifest are taken; numbers beyond the bound are
        clipped.
        """
        state = self._state("mask")
        check_manifest(self.terms.manifest, manifest_of(arrays))
        self._check_peers(state, sealed)
        received = state.received | {
            site: self._open(state, site, content) for site, content in sealed.items()
        }
        masked = dict(self._masked(arrays, state, sorted(sealed)))
        self._write(state, step="confirm", received=received)
        return masked

    def confirm(self, survivors: Collection[str]) -> bytes:
        """Step 3: sign which sites' masked updates are in the sum, once and for all."""
        state = self._state("confirm")
        self._check_enough(survivors)
        if not set(survivors) <= set(state.received):
            raise UpdateError(
                "expected survivors that shared their secrets, got others; "
                "repeat the round as another attempt"
            )
        self._write(state, step="reveal", survivors=sorted(survivors))
        return sign_survivors(survivors, self.site, self._key, self.terms)

    def reveal(self, signatures: Mapping[str, bytes]) -> dict[str, bytes]:
        """Step 4: return our share of the seed of a survivor, of the key of the others.

        ``signatures`` are those of the survivors over who they are. Of no site both
        shares are ever told: the answer is given once and the state is wiped with it.
        """
        state = self._state("reveal")
        found = _advertised(state)
        keys = {
            site: self._identify(site, found[site].certificate)
            for site in state.survivors
        }
        agreement(signatures, state.survivors, keys, self.terms)
        write_state(self._path, SiteSecrets(step="over"))
        return {
            site: seed if site in state.survivors else key
            for site, (key, seed) in state.received.items()
        }

    def _own(self, state: SiteSecrets) -> Advertisement:
        secrets = state.cipher_secret, state.mask_secret, state.seed
        return Advertisement.of(*secrets, self._certificate)

    def _state(self, step: str) -> SiteSecrets:
        state = read_state(self._path)
        if state.step != step:
            raise MismatchError(
                f"expected step {STEPS.index(state.step)} of the secure round, got "
                f"step {STEPS.index(step)}; repeat the round as another attempt"
            )
        return state

    def _write(self, state: SiteSecrets, **changes: object) -> SiteSecrets:
        changed = replace(state, **changes)  # type: ignore[arg-type]  # fields by name
        write_state(self._path, changed)
        return changed

    def _check_enough(self, sites: Collection[str]) -> None:
        if self.site not in sites or len(set(sites)) < self._needed:
            raise UpdateError(
                f"expected this site among at least {self._needed} sites, got fewer "
                "or others; wait for more sites"
            )

    def _check_peers(self, state: SiteSecrets, sealed: Mapping[str, bytes]) -> None:
        if self.site in sealed or not set(sealed) <= set(state.advertisements):
            raise UpdateError(
                "expected shares of other sites that advertised keys, got others; "
                "repeat the round as another attempt"
            )
        self._check_enough([self.site, *sealed])

    def _open(self, state: SiteSecrets, sender: str, sealed: bytes) -> list[bytes]:
        content = open_sealed(*self._channel(state, sender, self.site, sealed))
        if len(content) != 2 * SHARE_BYTES:
            raise UpdateError(
                f"expected two shares from {sender}, got another length; "
                "install the same version everywhere"
            )
        return [content[:SHARE_BYTES], content[SHARE_BYTES:]]

    def _channel(
        self, state: SiteSecrets, sender: str, receiver: str, content: bytes
    ) -> tuple[bytes, bytes, bytes]:
        """Return key, content and context of what one site tells another.

        The context names all advertised keys: who saw others cannot read it.
        """
        found = _advertised(state)
        peer = receiver if sender == self.site else sender
        context = self.terms.context("share", sender, receiver, set_digest(found))
        key = pair_key(state.cipher_secret, found[peer].cipher, context)
        return key, content, context

    def _masked(
        self, arrays: Arrays, state: SiteSecrets, peers: list[str]
    ) -> Iterator[tuple[str, NDArray[np.uint32]]]:
        """Yield ``y_u = x_u + PRG(b_u) +- PRG(s_uv)`` of each array (Sec. 4)."""
        found = _advertised(state)
        seed = derive(state.seed, self.terms.context("self", self.site))
        keys = {
            peer: pair_key(
                state.mask_secret,
                found[peer].mask,
                self.terms.context("pair", *sorted((self.site, peer))),
            )
            for peer in peers
        }
        for name in sorted(arrays):
            total = quantise(arrays[name], self.site, self.terms)
            add_mask(total, seed, name, self.terms, sign=1)
            for peer, key in keys.items():
                sign = 1 if self.site < peer else -1
                add_mask(total, key, name, self.terms, sign=sign)
            yield name, total


def _advertised(state: SiteSecrets) -> dict[str, Advertisement]:
    return {site: Advertisement(*keys) for site, keys in state.advertisements.items()}
