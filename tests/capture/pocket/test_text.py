"""The interpreter's own text: the same each time, split by whole documents, and a clear word where it is missing."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superscope.capture.pocket import Document, TextNotFound, documents, is_held_out, read, split, text, text_hash


@pytest.fixture(scope="module")
def found() -> tuple[Document, ...]:
    return documents()


def test_two_readings_agree(found: tuple[Document, ...]) -> None:
    text._sources.cache_clear()
    assert documents() == found
    assert text_hash() == text_hash(found)


def test_documents_are_named_once_in_order_and_never_empty(found: tuple[Document, ...]) -> None:
    names = [document.name for document in found]
    assert names == sorted(set(names))
    assert all(document.text for document in found)


def test_documents_are_topics_and_library_sources(found: tuple[Document, ...]) -> None:
    named = {document.name: document for document in found}
    assert named["topics/with"].kind == "topic"
    assert named["stdlib/colorsys.py"].kind == "source"
    assert {document.kind for document in found} == {"topic", "source"}
    assert named["stdlib/colorsys.py"].text == (Path(sysconfig.get_path("stdlib")) / "colorsys.py").read_text("utf-8")


def test_what_is_no_text_of_the_library_stays_out(found: tuple[Document, ...]) -> None:
    for document in found:
        parts = document.name.split("/")
        assert not set(parts) & {
            "test",
            "tests",
            "site-packages",
            "dist-packages",
            "encodings",
            "idlelib",
            "__pycache__",
        }
        assert not parts[-1].startswith("_sysconfigdata"), "written by the build, so different on every machine"
        assert "\r\n" not in document.text
        assert "\0" not in document.text
    assert "stdlib/pydoc_data/topics.py" not in {document.name for document in found}, "it is read as topics"


def test_split_is_by_whole_documents(found: tuple[Document, ...]) -> None:
    train, held_out = split(found)
    assert sorted([*train, *held_out], key=lambda document: document.name) == list(found)
    assert not {document.name for document in train} & {document.name for document in held_out}
    assert all(is_held_out(document.name) for document in held_out)
    assert 0.02 < len(held_out) / len(found) < 0.07
    assert 200_000 < sum(len(document.text.encode()) for document in held_out) < 900_000
    assert {document.kind for document in held_out} == {"topic", "source"}
    assert split() == (train, held_out)


@given(st.text())
def test_held_out_is_a_threshold_on_sha1(name: str) -> None:
    name = name.encode("utf-8", "ignore").decode()
    share = int(hashlib.sha1(name.encode()).hexdigest(), 16) / 2**160
    assert is_held_out(name) == (share < text.HELD_OUT_FRACTION)


def test_hash_tells_apart_lists_that_run_together() -> None:
    def hashed(*pairs: tuple[str, str]) -> str:
        return text_hash([Document(name, body, "given") for name, body in pairs])

    seen = {hashed(("a", "bc")), hashed(("ab", "c")), hashed(("a", "b"), ("c", "")), hashed(("a", "b")), hashed()}
    assert len(seen) == 5


def test_interpreter_without_topics_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(TextNotFound, match=r"0 bytes of topic text .* --text FILE_OR_FOLDER"):
        documents()


def test_interpreter_without_sources_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "only.py").write_text("pass\n")
    monkeypatch.setattr(text.sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"5 bytes of source text .* --text FILE_OR_FOLDER"):
        documents()


def test_read_a_folder(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "b" / "deep.txt").write_bytes("żółw 🐢\r\nend".encode())
    (tmp_path / "a.md").write_text("first")
    (tmp_path / ".git" / "config").write_text("hidden")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    (tmp_path / "nul").write_bytes(b"text\0then")
    (tmp_path / "empty").touch()
    assert read(tmp_path) == (Document("a.md", "first", "given"), Document("b/deep.txt", "żółw 🐢\nend", "given"))
    assert read(tmp_path / "a.md") == (Document("a.md", "first", "given"),)
    with pytest.raises(TextNotFound, match="holds no UTF-8 text"):
        read(tmp_path / "nul")
    with pytest.raises(TextNotFound, match="no file or folder"):
        read(tmp_path / "absent")
