"""Clients in files of their own, and secrets of clients in files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path as FilePath

from gateway.config.problems import Path
from gateway.config.source import Document, parse_document

SUFFIXES = frozenset({".yaml", ".yml"})
SECRETS = ("secret", "previous_secret")


def include_clients(document: Document, *, environ: Mapping[str, str], directory: FilePath) -> None:
    """Read the files of `clients_dir`, each a mapping of clients, into the section `clients`."""
    tree = document.tree
    name = tree.get("clients_dir")
    if not isinstance(name, str) or not name:
        return
    within = directory / name
    try:
        files = list_files(within)
    except OSError as error:
        document.problems.append(
            document.problem(("clients_dir",), f"{within} can't be read: {error.strerror}")
        )
        document.files[within] = None
        return
    # Read before the files: one that comes in between is noticed by the watch.
    document.files[within] = digest_names(files)
    if not isinstance(tree.get("clients") or {}, dict):
        return
    tree["clients"] = tree.get("clients") or {}
    for file in files:
        document.files[file] = None
        try:
            data = file.read_bytes()
            document.files[file] = sha256(data).digest()
            text = data.decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            document.problems.append(
                document.problem(("clients_dir",), f"{file} can't be read: {reason}")
            )
            continue
        document.include(
            "clients", parse_document(text, file=str(file), environ=environ, directory=within)
        )


def list_files(directory: FilePath) -> list[FilePath]:
    """The files of clients in a directory. Hidden ones are others': those of a mounted ConfigMap
    are links into a hidden directory. Raises `OSError`."""
    return sorted(
        file
        for file in directory.iterdir()
        if file.suffix in SUFFIXES and not file.name.startswith(".") and not file.is_dir()
    )


def digest_names(files: list[FilePath]) -> bytes:
    """SHA-256 of the names of files."""
    return sha256(
        "\0".join(file.name for file in files).encode("utf-8", "surrogateescape")
    ).digest()


def check_secrets(document: Document) -> Iterator[tuple[Path, str]]:
    """Check that secrets of clients come from files."""
    clients = document.tree.get("clients")
    for client_id, client in clients.items() if isinstance(clients, dict) else ():
        for key in SECRETS if isinstance(client, dict) else ():
            path = ("clients", client_id, key)
            if key in client and path not in document.from_files:
                yield (
                    path,
                    "expected ${file:PATH}: a secret has no place in the configuration; or give "
                    f"{key}_hash, as `gateway client hash` prints it",
                )
