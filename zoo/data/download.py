"""Published data sets: downloaded on request, and verified by the checksums that their authors publish."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.request import urlopen

from zoo.data.base import data_root
from zoo.data.images import InMemoryImages
from zoo.errors import UserError

TIMEOUT = 20.0  # seconds without an answer before a server counts as unreachable


@dataclass(frozen=True)
class Remote:
    """A file on a server.

    Args:
        url: its address.
        size: in bytes.
        md5: its checksum, as published.
    """

    url: str
    size: int
    md5: str

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.url.rpartition("/")[2]


def readable_size(size: int) -> str:
    """A number of bytes in a readable unit."""
    units = [(10**9, "GB"), (10**6, "MB"), (10**3, "kB")]
    return next((f"{size / n:.0f} {unit}" for n, unit in units if size >= n), f"{size} bytes")


def md5_of(path: Path) -> str:
    """The file's MD5 sum; it guards against accidents, not against attackers."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def verify(path: Path, md5: str) -> None:
    """Compare a file's checksum with the published one.

    Raises:
        UserError: they differ.
    """
    found = md5_of(path)
    if found != md5:
        raise UserError(
            f"{path} is not the published file (MD5 {found}, published {md5}): "
            "fetch it again, or accept the files as they are by --data.check false"
        )


def fetch(remote: Remote, folder: Path, what: str, licence: str) -> Path:
    """Download a file, verify it, and only then rename it to its final name.

    Args:
        remote: the file to download.
        folder: where to put it.
        what: name of the data set, for the messages.
        licence: of the data set, for the messages.

    Raises:
        UserError: the server is unreachable, or sends something else; the message says where to put the file by hand.
    """
    target = folder / remote.name
    about = f"{remote.name} ({readable_size(remote.size)})"
    print(f"{what}: fetching {about} from {remote.url} to {folder}; licence: {licence}", file=sys.stderr, flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{remote.name}.", dir=folder)
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file, urlopen(remote.url, timeout=TIMEOUT) as answer:
            shutil.copyfileobj(answer, file, 1 << 20)
        if (found := md5_of(partial)) != remote.md5:
            raise OSError(f"the received file has MD5 {found}, published is {remote.md5}")
        partial.chmod(0o644)
        partial.replace(target)
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{what}: {about} could not be fetched from {remote.url} ({reason}): put it at {target} by hand"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def unpack(archive: Path, folder: Path, member: str | None = None) -> None:
    """Unpack a tar archive, refusing members outside of the target, and only then rename the result to its final name.

    Args:
        archive: the file.
        folder: the result: the whole archive, or the folder ``member`` inside it.
        member: that folder.

    Raises:
        UserError: the archive is damaged, unsafe, or has no such folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
        partial.chmod(0o755)
        (partial / member if member else partial).replace(folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{archive} can't be unpacked into {folder}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class PublishedImages(InMemoryImages):
    """Base of published data sets that fit in memory.

    Args:
        root: parent of the data set's folder; default: the environment variable ``ZOO_DATA``, else ``data``.
        download: download missing files.
        check: accept only the published files; false accepts any (re-encoded images, a part of the data set).
        kwargs: as for every labelled image data set.

    Attributes:
        folder_name: name of the data set's folder.
        remotes: files to download.
    """

    folder_name: ClassVar[str]
    remotes: ClassVar[Sequence[Remote]]

    may_change: ClassVar[tuple[str, ...]] = ("root", "download", "check")

    def __init__(self, root: str | None = None, download: bool = False, check: bool = True, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.root, self.download, self.check = root, download, check

    @property
    def folder(self) -> Path:
        """The data set's folder."""
        return data_root(self.root) / self.folder_name

    @abstractmethod
    def missing(self) -> list[str]:
        """Names of missing files."""

    @abstractmethod
    def obtain(self) -> None:
        """Download or unpack what is missing."""

    def prepare_data(self) -> None:
        """Download or unpack what is missing; on one process only."""
        if self.missing() and not self.predicting:
            self.obtain()

    def refuse_missing(self) -> None:
        """Raise an error if files are missing.

        Raises:
            UserError: files are missing; the message says which, and how to get them.
        """
        if missing := self.missing():
            size = readable_size(sum(remote.size for remote in self.remotes))
            source = self.remotes[0].url.rpartition("/")[0]
            raise UserError(
                f"{type(self).__name__}: {self.folder} has no {missing[0]}; --data.download true fetches the set "
                f"({size} from {source}, licence: {self.licence}), --data.root names another folder"
            )

    def verified(self, path: Path, md5: str | None) -> Path:
        """The path; the file is verified if ``check`` is set and a checksum is published."""
        if self.check and md5 is not None:
            verify(path, md5)
        return path
