"""What crosses the wire of a federation, as pure functions; Flower is not here."""

from ctflow_fed.federation.aggregate import federated_average, weighted_mean
from ctflow_fed.federation.job import Job, open_job
from ctflow_fed.federation.ledger import Ledger, RoundRecord
from ctflow_fed.federation.local_fit import SiteResult, local_loss, local_round
from ctflow_fed.federation.payload import (
    RAW,
    Arrays,
    Manifest,
    WireArray,
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
from ctflow_fed.federation.settings import (
    ConfigValue,
    FederationSettings,
    RoundOrder,
    check_site_name,
)

__all__ = [
    "RAW",
    "Arrays",
    "ConfigValue",
    "FederationSettings",
    "Job",
    "Ledger",
    "Manifest",
    "RoundOrder",
    "RoundRecord",
    "SiteFacts",
    "SiteResult",
    "WireArray",
    "agreed_header",
    "arrays_of",
    "check_site_name",
    "check_update",
    "facts_of",
    "federated_average",
    "load_arrays",
    "local_loss",
    "local_round",
    "manifest_digest",
    "manifest_of",
    "mean_slices",
    "mean_spacing",
    "norm_of",
    "open_job",
    "pack",
    "unpack",
    "weighted_mean",
]
