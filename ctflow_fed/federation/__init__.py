"""What crosses the wire of a federation, and what each end keeps; no Flower is here."""

from ctflow_fed.federation.aggregate import (
    coordinate_median,
    federated_average,
    shares_of,
    trimmed_mean,
    weighted_mean,
)
from ctflow_fed.federation.defence import check_receipt, outliers, receipt
from ctflow_fed.federation.encoding import (
    PRECISIONS,
    RAW,
    Compressed,
    Wire,
    WireArray,
    bytes_of,
    compress,
    pack,
    unpack,
)
from ctflow_fed.federation.job import Job, open_job
from ctflow_fed.federation.ledger import Ledger, RoundRecord, read_ledger, release
from ctflow_fed.federation.local_fit import SiteResult, local_loss, local_round
from ctflow_fed.federation.order import RoundOrder
from ctflow_fed.federation.parcel import (
    Change,
    Opened,
    Parcel,
    Parcels,
    open_parcel,
)
from ctflow_fed.federation.part import AdapterPart, Part, WholePart, part_of
from ctflow_fed.federation.payload import (
    Arrays,
    Manifest,
    arrays_digest,
    arrays_of,
    check_update,
    load_arrays,
    manifest_digest,
    manifest_of,
    minus,
    norm_of,
    plus,
)
from ctflow_fed.federation.preflight import (
    SiteFacts,
    agreed_header,
    facts_of,
    mean_slices,
    mean_spacing,
)
from ctflow_fed.federation.server_state import (
    beside,
    beside_digest,
    read_beside,
    save_beside,
)
from ctflow_fed.federation.settings import (
    ConfigValue,
    FederationSettings,
    check_site_name,
)
from ctflow_fed.federation.site_state import SiteMemory, SiteState
from ctflow_fed.federation.strategies import (
    STRATEGIES,
    ServerState,
    Strategy,
    advance,
    follow,
)

__all__ = [
    "PRECISIONS",
    "RAW",
    "STRATEGIES",
    "AdapterPart",
    "Arrays",
    "Change",
    "Compressed",
    "ConfigValue",
    "FederationSettings",
    "Job",
    "Ledger",
    "Manifest",
    "Opened",
    "Parcel",
    "Parcels",
    "Part",
    "RoundOrder",
    "RoundRecord",
    "ServerState",
    "SiteFacts",
    "SiteMemory",
    "SiteResult",
    "SiteState",
    "Strategy",
    "WholePart",
    "Wire",
    "WireArray",
    "advance",
    "agreed_header",
    "arrays_digest",
    "arrays_of",
    "beside",
    "beside_digest",
    "bytes_of",
    "check_receipt",
    "check_site_name",
    "check_update",
    "compress",
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
    "minus",
    "norm_of",
    "open_job",
    "open_parcel",
    "outliers",
    "pack",
    "part_of",
    "plus",
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
