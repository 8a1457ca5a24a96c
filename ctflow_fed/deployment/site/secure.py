"""A site's part in secure rounds: at its launcher, where the keys of the site are.

The program at the site trains and gives its update; it is masked here, once it has been
checked. The steps around that are questions of the kind ``query.secure``, which are
answered here at once. Questions and answers are records of texts:

    step     advertise, share, confirm or reveal
    terms    those of the round (`ctflow_fed.federation.secure.Terms`)
    body     what belongs to the step; with the order to train, the shares of the others
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctflow_fed.deployment.certificates import Key, certified_key, read_identity
from ctflow_fed.errors import PackageError, UpdateError
from ctflow_fed.federation import Arrays, RoundOrder, minus
from ctflow_fed.federation.secure import (
    LEAST_IN_SUM,
    SecureSite,
    Terms,
    names_in,
    row_in,
    rows_in,
    to_text,
)

__all__ = ["SECURE", "SecureDesk", "open_desk"]

SECURE = "query.secure"
"""The kind of message that a step is."""

Question = Mapping[str, object]


@dataclass(frozen=True)
class SecureDesk:
    """Answers the steps of secure rounds for a site, and masks its updates.

    ``authority`` is the certificate by which all sites know one another, ``folder`` is
    where the secrets of a round are, ``least`` how many sites there must be in a sum.
    """

    site: str
    key: Key = field(repr=False)
    certificate: bytes
    authority: bytes
    folder: Path
    least: int = LEAST_IN_SUM

    def answer(self, question: Question) -> dict[str, str]:
        """Return the answer to a step; one out of order raises ``CTFlowError``."""
        party, body = self._party(question), question.get("body")
        said: object
        match question.get("step"):
            case "advertise":
                said = party.advertise()
            case "share":
                said = party.share(rows_in(body))
            case "confirm":
                said = {"word": party.confirm(names_in(body))}
            case "reveal":
                said = party.reveal(row_in(body))
            case _:
                raise UpdateError(
                    "expected a step of a secure round, got another; "
                    "install the same version everywhere"
                )
        return {"body": to_text(said)}

    def mask(
        self, question: Question, order: RoundOrder, update: Arrays, start: Arrays
    ) -> dict[str, NDArray[np.uint32]]:
        """Return how far an update went from ``start``, masked.

        The terms must be those of the very order that was trained.
        """
        party = self._party(question)
        if party.terms.order != order.digest:
            raise UpdateError(
                "expected the terms of a secure round with its order, got those of "
                "another; repeat the round as another attempt"
            )
        return party.mask(minus(update, start), row_in(question.get("body")))

    def _party(self, question: Question) -> SecureSite:
        return SecureSite(
            self.site,
            self.key,
            self.certificate,
            partial(certified_key, authority=self.authority),
            Terms.from_text(question.get("terms")),
            self.folder,
            least=self.least,
        )


def open_desk(
    site: str, kit: Path, folder: Path, least: int = LEAST_IN_SUM
) -> SecureDesk:
    """Return the desk of a site whose key and certificate lie in a kit's folder."""
    try:
        key, certificate = read_identity(kit / "site.pem")
        authority = (kit / "ca.crt").read_bytes()
    except OSError:
        raise PackageError(
            "expected site.pem and ca.crt in the site's kit, found none; "
            "ask the coordinator for a new kit"
        ) from None
    return SecureDesk(site, key, certificate, authority, folder, least)
