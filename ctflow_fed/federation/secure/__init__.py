"""Secure aggregation: the server learns a mean over sites and no update of one.

The protocol is that of Bonawitz et al. 2017 (eprint 2017/281, Fig. 4) with double
masks, signed keys, dropouts and its consistency check:

====  ===========================  ==========================================
step  a site sends                 the server
====  ===========================  ==========================================
0     `SecureSite.advertise`       `SecureServer.advertised` to all
1     `SecureSite.share`           `SecureServer.relayed` to each
2     `SecureSite.mask`            `SecureServer.add`, then `close`
3     `SecureSite.confirm`         `SecureServer.agreed` to the survivors
4     `SecureSite.reveal`          `SecureServer.unmask`
====  ===========================  ==========================================

It needs the extra `federation`; `ctflow_fed.federation` does not import it.
"""

from ctflow_fed.federation.secure.advertisement import Identify
from ctflow_fed.federation.secure.server import SecureServer
from ctflow_fed.federation.secure.site import SecureSite
from ctflow_fed.federation.secure.terms import (
    LEAST_IN_SUM,
    Terms,
    smallest_threshold,
)
from ctflow_fed.federation.secure.wire import names_in, row_in, rows_in, to_text

__all__ = [
    "LEAST_IN_SUM",
    "Identify",
    "SecureServer",
    "SecureSite",
    "Terms",
    "names_in",
    "row_in",
    "rows_in",
    "smallest_threshold",
    "to_text",
]
