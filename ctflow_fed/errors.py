"""Every error that this toolkit raises on purpose.

CTFlowError
├── InputError              something that came from outside cannot be used
│   ├── VolumeError             a scan: DICOM series or NIfTI file
│   ├── ReportTableError        a table of reports or labels
│   ├── StoreError              a folder of latents or of synthetic volumes
│   ├── PackageError            a model package or published weights
│   ├── SettingsError           a value chosen by the user
│   └── UpdateError             a message of the federation
├── MismatchError           two valid things that do not belong together
├── MissingExtraError       an optional dependency is not installed
└── IncompleteError         a job ended before all of its work was done

A message is one sentence with what was expected, what came, and the remedy. It never
quotes a patient identifier, a report or a raw value, so it may be logged and sent.
"""

__all__ = [
    "CTFlowError",
    "IncompleteError",
    "InputError",
    "MismatchError",
    "MissingExtraError",
    "PackageError",
    "ReportTableError",
    "SettingsError",
    "StoreError",
    "UpdateError",
    "VolumeError",
]


class CTFlowError(Exception):
    """The base of every error raised on purpose; its text is fit for the user."""


class InputError(CTFlowError):
    """Something that came from outside cannot be used."""


class VolumeError(InputError):
    """A scan cannot be read without the risk of misreading it."""


class ReportTableError(InputError):
    """A table of reports or labels lacks what is needed."""


class StoreError(InputError):
    """A folder of latents or of synthetic volumes is not what its header says."""


class PackageError(InputError):
    """A model package or a folder of published weights cannot be loaded."""


class SettingsError(InputError):
    """A value that the user chose is out of range."""


class UpdateError(InputError):
    """A message of the federation breaks the contract of its round."""


class MismatchError(CTFlowError):
    """Two valid things do not belong together: a model and another codec, say."""


class MissingExtraError(CTFlowError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs {package}, which is not installed; "
            f"install it with: pip install 'ctflow-fed[{extra}]'"
        )


class IncompleteError(CTFlowError):
    """A job ended before all of its work was done; the same command goes on."""
