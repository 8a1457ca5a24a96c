"""Secure aggregation: the server learns a mean over sites and no update of one.

The protocol is that of Bonawitz et al. 2017 (eprint 2017/281, Fig. 4) with double
masks, signed keys and dropouts, but without its consistency check (see SECURITY.md):

====  ===========================  ==========================================
step  a site sends                 the server
====  ===========================  ==========================================
0     `SecureSite.advertise`       `SecureServer.advertised` to all
1     `SecureSite.share`           `SecureServer.relayed` to each
2     `SecureSite.mask`            `SecureServer.add`, then `close`
3     `SecureSite.reveal`          `SecureServer.unmask`
====  ===========================  ==========================================

It needs the extra `federation`; `ctflow_fed.federation` does not import it.
"""

from ctflow_fed.federation.secure.server import SecureServer
from ctflow_fed.federation.secure.site import SecureSite
from ctflow_fed.federation.secure.terms import Terms, smallest_threshold

__all__ = ["SecureServer", "SecureSite", "Terms", "smallest_threshold"]
