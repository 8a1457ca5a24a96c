"""What crosses the wire of a federation, as pure functions; Flower is not here."""

from ctflow_fed.federation.aggregate import (
    coordinate_median,
    federated_average,
    shares_of,
    trimmed_mean,
    weighted_mean,
)
from ctflow_fed.federation.defence import check_receipt, outliers, receipt
from ctflow_fed.federation.job import Job, open_job
from ctflow_fed.federation.ledger import Ledger, RoundRecord, read_ledger, release
from ctflow_fed.federation.local_fit import SiteResult, local_loss, local_round
from ctflow_fed.federation.payload import (
    RAW,
    Arrays,
    Manifest,
    WireArray,
    arrays_digest,
    arrays_of,
    check_update,
    load_arrays,
    manifest_digest,
    manifest_of,
    norm_of,
    pack,
    unpack,
)
from ctflow_fed.federation.preflight import (
    SiteFacts,
    agreed_header,
    facts_of,
    mean_slices,
    mean_spacing,
)
from ctflow_fed.federation.server_state import beside_digest, read_beside, save_beside
from ctflow_fed.federation.settings import (
    ConfigValue,
    FederationSettings,
    RoundOrder,
    check_site_name,
)
from ctflow_fed.federation.strategies import (
    STRATEGIES,
    ServerState,
    Strategy,
    advance,
    follow,
)

__all__ = [
    "RAW",
    "STRATEGIES",
    "Arrays",
    "ConfigValue",
    "FederationSettings",
    "Job",
    "Ledger",
    "Manifest",
    "RoundOrder",
    "RoundRecord",
    "ServerState",
    "SiteFacts",
    "SiteResult",
    "Strategy",
    "WireArray",
    "advance",
    "agreed_header",
    "arrays_digest",
    "arrays_of",
    "beside_digest",
    "check_receipt",
    "check_site_name",
    "check_update",
    "coordinate_median",
    "facts_of",
    "federated_average",
    "follow",
    "load_arrays",
    "local_loss",
    "local_round",
    "manifest_digest",
    "manifest_of",
    "mean_slices",
    "mean_spacing",
    "norm_of",
    "open_job",
    "outliers",
    "pack",
    "read_beside",
    "read_ledger",
    "receipt",
    "release",
    "save_beside",
    "shares_of",
    "trimmed_mean",
    "unpack",
    "weighted_mean",
]
