"""The series of a folder, told apart; of a study the best one, as a volume in HU."""

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ctflow_fed.ct.demographics import UNKNOWN, Demographics
from ctflow_fed.ct.dicom.geometry import DUPLICATE_MM, SliceGrid, regular_grid
from ctflow_fed.ct.dicom.headers import LOCALIZER, DicomFile, SliceHeader, read_file
from ctflow_fed.ct.dicom.kernels import kernel_kind
from ctflow_fed.ct.dicom.parsing import looks_like_dicom
from ctflow_fed.ct.dicom.pixels import Loss, decode_file
from ctflow_fed.ct.policy import STRICT, IntakePolicy
from ctflow_fed.ct.volume import MAX_VOXELS, CTVolume, refuse_other_than_hounsfield
from ctflow_fed.errors import VolumeError
from ctflow_fed.shapes import HU

__all__ = ["Study", "read_series", "studies_in", "the_only", "visible_files"]

MAX_FILES = 100_000
"""The most files that are looked at in a folder."""

COVERS_LUNGS_MM = 200
"""Most lungs are this high: a series that covers more is not better for it."""

_SAME_DIRECTION = 1e-4
"""How much direction cosines may differ within a series: 0.05 mm across 500 mm."""

_SAME_SPACING = 1e-4
"""How much pixel spacing may differ, relatively: 0.05 mm across 500 mm."""


@dataclass(frozen=True)
class Series:
    """Slices that may be one volume, or the ``problem`` why they are none.

    ``copies`` are further slices, each with the index of the one at whose place it is.
    """

    slices: tuple[SliceHeader, ...] = ()
    copies: tuple[tuple[int, SliceHeader], ...] = ()
    grid: SliceGrid | None = None
    problem: str = ""

    def merit(self, policy: IntakePolicy) -> tuple[float, ...]:
        """What makes a series better than another, the most important first.

        A regular grid, axial slices, lungs covered, thin slices (half a millimetre
        does not matter), the kernel that is wanted, an original, more slices.
        """
        if self.grid is None:
            return (0, len(self.slices))
        step = self.grid.affine[:3, 0].tolist()
        thickness = math.hypot(*step)
        kind = kernel_kind(self.slices[0].kernel)
        wanted = (policy.kernel, "soft", "lung", "unknown", "bone")
        return (
            1,
            abs(step[2]) > 0.9 * thickness,
            min(thickness * len(self.slices), COVERS_LUNGS_MM) // 20,
            -round(2 * thickness),
            -wanted.index(kind),
            "ORIGINAL" in self.slices[0].image_type,
            -thickness,
            len(self.slices),
        )

    def read(self, policy: IntakePolicy) -> CTVolume:
        """Decode, straighten and turn the slices, or raise ``VolumeError``."""
        if self.grid is None:
            raise VolumeError(self.problem)
        accepts_lossy = policy.lossy == "accept"
        hu = np.empty((len(self.slices), *_size(self.slices[0])), np.int16)
        ordered = [self.slices[index] for index in self.grid.order]
        loss = _decode(ordered, hu, lossy=accepts_lossy)
        self._refuse_other_copies(hu, lossy=accepts_lossy)
        notes = list(self._notes(loss))
        if (straightening := self.grid.straightening) is not None:
            hu = straightening(hu)
            notes += straightening.notes
        volume = CTVolume.canonical(hu, self.grid.affine, tuple(notes))
        refuse_other_than_hounsfield(volume)
        return volume

    def _refuse_other_copies(self, hu: HU, *, lossy: bool) -> None:
        """Refuse a second slice at a place, unless it shows the same."""
        places = {index: place for place, index in enumerate(self.grid.order)}  # type: ignore[union-attr]
        for index, header in self.copies:
            copy = np.empty((1, *_size(header)), np.int16)
            _decode([header], copy, lossy=lossy)
            if not np.array_equal(copy[0], hu[places[index]]):
                raise VolumeError(
                    "expected one slice at a position, got several that differ (phases "
                    "or time points); export one acquisition alone"
                )

    def _notes(self, loss: Loss) -> Iterator[str]:
        if self.copies:
            yield f"{len(self.copies)} identical copies of slices dropped"
        if self.slices[0].lossy or loss.lossy:
            yield "lossily compressed source accepted: its HU may be off"
        if loss.beyond:
            yield f"{loss.beyond} voxels beyond int16 clipped"

    def __str__(self) -> str:
        """Say what the series is, without a word of its header."""
        if self.grid is None:
            return f"{len(self.slices)} slices that are no volume"
        step = np.linalg.norm(self.grid.affine[:3, 0])
        kind = kernel_kind(self.slices[0].kernel)
        return f"{len(self.slices)} slices {step:.3g} mm apart ({kind} kernel)"


@dataclass(frozen=True)
class Study:
    """One study of one patient: its series, the best first.

    ``names`` are what a table of reports may call it; they are never saved or shown.
    """

    patient: bytes = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    series: tuple[Series, ...]
    left_aside: tuple[str, ...] = ()
    demographics: Demographics = UNKNOWN
    synthetic: bool = False

    @property
    def shows_patient(self) -> bool:
        """Whether there is any CT in it, be it a localizer."""
        return bool(self.series) or LOCALIZER in self.left_aside

    def read(self, policy: IntakePolicy = STRICT) -> tuple[CTVolume, str]:
        """Return the best series that can be read, and what was chosen from.

        Raises:
            VolumeError: with the problem of the best when none can be.
        """
        problem = VolumeError(
            f"expected a CT series, got {' and '.join(self.left_aside) or 'none'}; "
            "export the original CT"
        )
        for rank, series in enumerate(self.series):
            try:
                return series.read(policy), self._choice(series)
            except VolumeError as error:
                problem = problem if rank else error
        raise problem

    def _choice(self, chosen: Series) -> str:
        others = [str(series) for series in self.series if series is not chosen]
        return f"chosen: {chosen}; left: {', '.join(others)}" if others else ""


def read_series(folder: Path, policy: IntakePolicy = STRICT) -> CTVolume:
    """Read the best CT series of the one study in ``folder``, in canonical order.

    Geometry comes from ImagePositionPatient, ImageOrientationPatient and PixelSpacing;
    every slice has its own rescale applied; padding becomes air. Files that are not
    DICOM, a DICOMDIR, hidden files and objects that are no CT are left aside.

    Raises:
        VolumeError: when no regular series of original CT slices is there, or several
            studies; the sentence names neither file nor patient.
    """
    studies = studies_in(folder, policy)
    return the_only(studies).read(policy)[0]


def the_only(studies: Sequence[Study]) -> Study:
    """Return the study of a folder that is expected to hold CT of one.

    A localizer counts: what lies beside that of another patient may be another's too.
    """
    scanned = [study for study in studies if study.shows_patient] or studies[:1]
    patients = len({study.patient for study in scanned})
    if len(scanned) > 1:
        found = f"{patients} patients" if patients > 1 else f"{len(scanned)} studies"
        raise VolumeError(
            f"expected one study in a folder, got slices of {found}; give each study a "
            "folder of its own, or name studies in the table by UID or accession number"
        )
    return scanned[0]


def studies_in(folder: Path, policy: IntakePolicy = STRICT) -> tuple[Study, ...]:
    """Tell the studies below ``folder`` apart, at any depth; pixels are not read.

    Raises ``VolumeError`` when there is no DICOM, or a header that cannot be parsed.
    """
    by_study: dict[tuple[bytes, bytes], list[DicomFile]] = defaultdict(list)
    for path in _dicom_files(folder):
        file = read_file(path)
        if file is not None:
            by_study[file.patient, file.study].append(file)
    if not by_study:
        raise VolumeError(
            "expected a folder with a DICOM CT series, got none in it; check the path"
        )
    return tuple(_study(files, policy) for _, files in sorted(by_study.items()))


def _study(files: Sequence[DicomFile], policy: IntakePolicy) -> Study:
    """Split the files of a study into series and rank them."""
    broken = {file.series: file.problem for file in files if file.problem}
    slices = [
        header for file in files if file.series not in broken for header in file.slices
    ]
    series = [_series(group, policy) for group in _split(slices)]
    series += [Series(problem=problem) for problem in broken.values()]
    names = {name for file in files for name in (file.study, file.accession) if name}
    return Study(
        files[0].patient,
        tuple(sorted(name.decode("ascii", "replace").strip() for name in names)),
        tuple(sorted(series, key=lambda one: one.merit(policy), reverse=True)),
        tuple(sorted({file.left_aside for file in files if file.left_aside})),
        Demographics.agreed({file.demographics for file in files}),
        any(file.synthetic for file in files),
    )


def _split(slices: Iterable[SliceHeader]) -> Iterator[list[SliceHeader]]:
    """Part slices by series, picture and geometry."""
    alike: dict[object, list[list[SliceHeader]]] = defaultdict(list)
    for header in slices:
        key = (header.series, header.image_type, _size(header), header.lossy)
        for group in alike[key]:
            if _same_geometry(header, group[0]):
                group.append(header)
                break
        else:
            alike[key].append([header])
    for groups in alike.values():
        yield from groups


def _same_geometry(one: SliceHeader, other: SliceHeader) -> bool:
    return np.allclose(
        one.orientation, other.orientation, rtol=0, atol=_SAME_DIRECTION
    ) and np.allclose(
        one.pixel_spacing, other.pixel_spacing, rtol=_SAME_SPACING, atol=0
    )


def _series(group: Sequence[SliceHeader], policy: IntakePolicy) -> Series:
    """Place the slices of a series, or say why they cannot be."""
    slices, copies = _without_copies(group)
    first = slices[0]
    size = _size(first)
    try:
        if first.lossy and policy.lossy == "refuse":
            raise VolumeError(
                "expected uncompressed or losslessly compressed slices, got a lossy "
                "compression; export the original, or let the policy accept it"
            )
        if len(slices) * size[0] * size[1] > MAX_VOXELS:
            raise VolumeError(
                f"expected at most {MAX_VOXELS} voxels, got headers that claim more; "
                "export the series in parts"
            )
        positions = np.array([header.position for header in slices], np.float64)
        spacing = first.pixel_spacing
        grid = regular_grid(first.orientation, spacing, size, positions, policy)
    except VolumeError as error:
        return Series(slices, problem=str(error))
    return Series(slices, copies, grid)


def _without_copies(
    group: Sequence[SliceHeader],
) -> tuple[tuple[SliceHeader, ...], tuple[tuple[int, SliceHeader], ...]]:
    """Part slices from those that lie where another one lies."""
    places: dict[tuple[int, ...], int] = {}
    slices: list[SliceHeader] = []
    copies: list[tuple[int, SliceHeader]] = []
    for header in group:
        place = tuple(round(length / DUPLICATE_MM) for length in header.position)
        if place in places:
            copies.append((places[place], header))
        else:
            places[place] = len(slices)
            slices.append(header)
    return tuple(slices), tuple(copies)


def _size(header: SliceHeader) -> tuple[int, int]:
    return header.pixels.rows, header.pixels.columns


def _decode(slices: Sequence[SliceHeader], hu: HU, *, lossy: bool) -> Loss:
    """Decode slices into the planes of ``hu``, file by file; tell what was lost."""
    by_file: dict[Path, dict[int, tuple[SliceHeader, np.ndarray]]] = defaultdict(dict)
    for header, plane in zip(slices, hu, strict=True):
        by_file[header.path][header.frame] = header, plane
    beyond, lost = 0, False
    for path, wanted in by_file.items():
        first, _ = next(iter(wanted.values()))
        other = (first, np.empty(hu.shape[1:], np.int16))  # a frame of another series
        frames = [wanted.get(index, other) for index in range(first.pixels.frames)]
        loss = decode_file(
            path,
            first.pixels,
            [(header.slope, header.intercept) for header, _ in frames],
            [plane for _, plane in frames],
            lossy=lossy,
        )
        beyond += loss.beyond
        lost |= loss.lossy
    return Loss(beyond, lost)


def _dicom_files(folder: Path) -> Iterator[Path]:
    """Yield the DICOM files below ``folder`` in a fixed order."""
    for path in visible_files(folder):
        if looks_like_dicom(path):
            yield path
        elif path.suffix.lower() == ".dcm":
            raise VolumeError(
                "expected DICOM in every .dcm file, got one without DICOM's mark (cut "
                "short?); export the series again"
            )


def visible_files(folder: Path) -> list[Path]:
    """Return the visible regular files below ``folder``, sorted.

    Links to folders are not followed. Raises ``VolumeError`` for more files than a
    patient has.
    """
    found: list[Path] = []
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        found += [path for path in paths if path.is_file()]
        if len(found) > MAX_FILES:
            raise VolumeError(
                f"expected at most {MAX_FILES} files, got more; give each study a "
                "folder of its own"
            )
    return sorted(found)
