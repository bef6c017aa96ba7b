"""Which text is on every machine that runs Python? The interpreter's own: its language reference and its library.

Nothing is stored and nothing is fetched. The text differs between versions of Python, so figures go with `text_hash`,
and the pocket model's card names the version it was trained on. The text is under the PSF License, version 2.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HELD_OUT_FRACTION = 0.04
"""Share of documents (not of bytes) that is never trained on."""

MINIMUM_TOPIC_BYTES = 200_000
MINIMUM_SOURCE_BYTES = 2_000_000
"""Below these an interpreter counts as without its text: CPython 3.11 has 0.46 MB of topics, 8.8 MB of source."""

# Tests repeat themselves, tables of encodings and bundled wheels are no text, lib2to3 and idlelib left or leave the
# library, and config-* and lib-dynload hold what the build of one machine produced.
EXCLUDED_FOLDERS = frozenset(
    {
        "__pycache__",
        "_bundled",
        "dist-packages",
        "encodings",
        "idlelib",
        "idle_test",
        "lib-dynload",
        "lib2to3",
        "site-packages",
        "test",
        "tests",
        "turtledemo",
    }
)
# _sysconfigdata_* is written by the build and names its machine; pydoc_data/topics.py is read as topics.
EXCLUDED_PREFIXES = ("_sysconfigdata", "sitecustomize", "usercustomize")
EXCLUDED_FILES = frozenset({"pydoc_data/topics.py"})


class TextNotFound(FileNotFoundError):
    """This interpreter does not carry the text, or a path given for one holds none."""


@dataclass(frozen=True)
class Document:
    """One topic of the language reference, or one source file.

    Args:
        name: `topics/<topic>` or `stdlib/<path>`, with forward slashes on every system.
        text: the whole document, lines ending in a line feed.
        kind: "topic", "source" or, for text a user gave, "given".
    """

    name: str
    text: str
    kind: Literal["topic", "source", "given"]


def documents() -> tuple[Document, ...]:
    """Every topic and every source file of the running interpreter, ordered by name.

    Tests, encodings, idlelib, lib2to3, turtledemo, bundled wheels and installed packages are left out. Reads about
    9 MB; two calls give equal documents.

    Raises:
        TextNotFound: if the interpreter is a build without `pydoc_data.topics` or without its library's source.

    Example:
        >>> found = documents()
        >>> found == tuple(sorted(found, key=lambda document: document.name))
        True
        >>> {document.kind for document in found} == {"topic", "source"}
        True
    """
    found = [*_topics(), *_sources(sysconfig.get_path("stdlib"))]
    for kind, least in (("topic", MINIMUM_TOPIC_BYTES), ("source", MINIMUM_SOURCE_BYTES)):
        size = sum(len(document.text.encode()) for document in found if document.kind == kind)
        if size < least:
            raise TextNotFound(
                f"This Python carries {size:,} bytes of {kind} text where at least {least:,} are needed "
                "(a minimal, frozen or zipped build leaves it out): give a text of your own with "
                "--text FILE_OR_FOLDER, or run under a full build of CPython."
            )
    return tuple(sorted(found, key=lambda document: document.name))


def read(path: Path | str) -> tuple[Document, ...]:
    """The text in a file, or in every UTF-8 file below a folder, one document a file, ordered by name.

    Files that are not UTF-8, or hold a NUL character, are passed over in a folder and refused when named alone.

    Args:
        path: a file or a folder; hidden files and folders are left out.

    Raises:
        TextNotFound: if there is no such path, or no text in it.
    """
    path = Path(path)
    if not path.exists():
        raise TextNotFound(f"There is no file or folder '{path}': give --text a path that exists.")
    files = [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]
    base = path.parent if path.is_file() else path
    result: list[Document] = []
    for file in files:
        name = file.relative_to(base).as_posix()
        if any(part.startswith(".") for part in name.split("/")):
            continue
        text = _decoded(file)
        if text:
            result.append(Document(name, text, "given"))
    if not result:
        raise TextNotFound(f"'{path}' holds no UTF-8 text: give --text a text file, or a folder with text files.")
    return tuple(sorted(result, key=lambda document: document.name))


def is_held_out(name: str) -> bool:
    """Whether the document of this name is kept for evaluation: SHA-1 of the name falls in the lowest 4 %.

    By name, not by content or position, so that a document stays on its side of the split when others come and go
    and when a new Python edits it.

    Example:
        >>> is_held_out("topics/with"), is_held_out("topics/with") == is_held_out("topics/with")
        (False, True)
    """
    head = int.from_bytes(hashlib.sha1(name.encode(), usedforsecurity=False).digest()[:8], "big")
    return head < HELD_OUT_FRACTION * 2**64


def split(found: Sequence[Document] | None = None) -> tuple[tuple[Document, ...], tuple[Document, ...]]:
    """Documents to train on and documents held out, by whole documents; the interpreter's own unless given."""
    found = documents() if found is None else found
    train = tuple(document for document in found if not is_held_out(document.name))
    held_out = tuple(document for document in found if is_held_out(document.name))
    return train, held_out


def text_hash(found: Sequence[Document] | None = None) -> str:
    """SHA-256 over names and texts in order: equal exactly when two interpreters carry the same documents."""
    digest = hashlib.sha256()
    for document in documents() if found is None else found:
        for part in (document.name.encode(), document.text.encode()):
            # Lengths first, so that no two lists of documents run together into the same bytes.
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()


def _topics() -> list[Document]:
    try:
        module = importlib.import_module("pydoc_data.topics")
    except ModuleNotFoundError:
        return []
    return [Document(f"topics/{name}", text.replace("\r\n", "\n"), "topic") for name, text in module.topics.items()]


@functools.cache
def _sources(library: str) -> tuple[Document, ...]:
    """Every source file below `library`, kept: all who read the interpreter's text read it once."""
    root = Path(library)
    result: list[Document] = []
    for folder, inner, files in os.walk(root):
        inner[:] = (name for name in inner if name not in EXCLUDED_FOLDERS and not name.startswith("config-"))
        for file in (Path(folder, name) for name in files if name.endswith(".py")):
            name = file.relative_to(root).as_posix()
            if name in EXCLUDED_FILES or file.name.startswith(EXCLUDED_PREFIXES):
                continue
            text = _decoded(file)
            if text:
                result.append(Document(f"stdlib/{name}", text, "source"))
    return tuple(result)


def _decoded(file: Path) -> str | None:
    """The file's text, or None where it is not UTF-8 or holds a NUL, the mark of data."""
    try:
        text = file.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text.replace("\r\n", "\n")
