"""What is read: documents from any text, and the windows of tokens they are cut into."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as with_fields
from itertools import islice
from pathlib import Path
from typing import Any, overload

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ...core import FormatError, ShapeError
from .permutation import Bijection
from .policy import Policy

_DATASETS = "datasets:"
_BATCH = 64  # documents tokenized in one call: enough for a fast tokenizer's threads, little memory
_SURPLUS = 4  # windows to choose from, per window kept under a limit


@dataclass(frozen=True)
class Document:
    """A text that belongs together: windows of tokens never run from one document into the next.

    Args:
        name: a topic, a file's path inside its folder, or `text <i>` in a list.
        text: all of it, lines ending in a line feed; of a conversation nothing, since its text is the template's.
        messages: of a conversation, its turns, each with `role` and `content`.
    """

    name: str
    text: str
    messages: tuple[dict[str, Any], ...] = ()


def documents(text: str | Path | Sequence[str] | Sequence[Document] | Any | None = None) -> tuple[Document, ...]:
    """The documents in `text`, whatever it is; empty ones are left out.

    Args:
        text: `None` for the text that every Python carries (its language reference and library). A string or path: a
            file (any UTF-8 text; `.jsonl` with a `text` field and `.parquet` with a `text` column give one document a
            row), a folder (every text file below it, binary and hidden ones passed over), or
            `datasets:NAME` or `datasets:NAME:SPLIT` for a dataset of the `datasets` library. A list: the texts
            themselves. A `datasets` Dataset: its `text` column.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        FormatError: if a file is no text, or lacks the `text` field.
        ValueError: if there is nothing but blanks.
        ModuleNotFoundError: if a dataset is named and the `datasets` library is not installed.

    Example:
        >>> [(document.name, document.text) for document in documents(["One thing.", "", "Another."])]
        [('text 0', 'One thing.'), ('text 2', 'Another.')]
    """
    found, said = _opened(text, streaming=False)
    result = tuple(document for document in found if document.messages or document.text.strip())
    if not result:
        raise ValueError(f"documents: {said} holds no text, only blanks; give a file, folder or list with text in it.")
    return result


def stream(text: str | Path | Iterable[Any] | Any | None = None, *, seed: int | None = None) -> Iterator[Document]:
    """The documents of `documents`, one after another, for texts too large to hold; a dataset is streamed.

    Args:
        text: as for `documents`; also any iterable, and a streaming dataset.
        seed: of the order, where the text can be put in one: what Python carries, lists and the files of a folder.
            Rows of one file or dataset come as they are.

    Raises:
        ValueError: if there is nothing but blanks; and as for `documents`.

    Example:
        >>> [document.name for document in stream(iter(["One.", " ", "Two."]))]
        ['text 0', 'text 2']
    """
    found, said = _opened(text, streaming=True, seed=seed)
    n = 0
    for document in found:
        if document.messages or document.text.strip():
            n += 1
            yield document
    if not n:
        raise ValueError(f"documents: {said} holds no text, only blanks; give a file, folder or list with text in it.")


def _opened(text: Any, *, streaming: bool, seed: int | None = None) -> tuple[Iterable[Document], str]:
    if text is None:
        from ..pocket.text import documents as carried

        return _mixed([Document(document.name, document.text) for document in carried()], seed), "Python's text"
    if isinstance(text, (str, Path)):
        named = str(text)
        if named.startswith(_DATASETS):
            return _dataset_named(named, streaming=streaming), f"'{text}'"
        return _at_path(text, seed), f"'{text}'"
    # A streaming dataset that has not looked at its rows knows no columns.
    if hasattr(text, "column_names"):
        return _rows(text, "the dataset"), "the dataset"
    if isinstance(text, Iterable):
        given: Iterable[Any] = _mixed(text, seed) if isinstance(text, Sequence) else text
        return _listed(given), "the list"
    raise TypeError(
        f"documents: text is a {type(text).__name__}; give a path, a list of strings, a dataset, or None for the "
        "text that Python carries."
    )


def _mixed(things: Sequence[Any], seed: int | None) -> Sequence[Any]:
    if seed is None:
        return things
    return [things[i] for i in Bijection(len(things), seed)(torch.arange(len(things))).tolist()]


@dataclass(frozen=True, eq=False)
class Corpus:
    """Windows of tokens, with what is known about each: S sequences of `context` ids.

    `len(corpus)` is S, and `corpus[a:b]` the ids of some sequences, ready for a model.

    Args:
        ids: token ids, padded on the right.
        keep: which positions are text: False on pads and on special tokens that were added.
        length: how many ids of each sequence are real, added special tokens included.
        document: which document each sequence is from, an index into `names`.
        start: where in its document the sequence's first token of text stands, counted in tokens.
        names: the documents' names.
        policy: how the windows were made: context, what was put before and after each, limit, seed.
    """

    ids: Int[Tensor, "S t"]
    keep: Bool[Tensor, "S t"]
    length: Int[Tensor, "S"]
    document: Int[Tensor, "S"]
    start: Int[Tensor, "S"]
    names: tuple[str, ...]
    policy: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("keep", "length", "document", "start"):
            n = len(getattr(self, name))
            if n != len(self.ids):
                raise ShapeError(f"Corpus: {name} has {n} entries for {len(self.ids)} sequences; give one for each.")

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Int[Tensor, "t"]: ...
    @overload
    def __getitem__(self, index: slice) -> Int[Tensor, "_ t"]: ...
    def __getitem__(self, index: int | slice) -> Tensor:
        return self.ids[index]

    @property
    def context(self) -> int:
        """Ids in a window."""
        return self.ids.shape[1]

    @property
    def n_tokens(self) -> int:
        """Tokens of text: pads and added special tokens are not counted."""
        return int(self.keep.sum())

    @property
    def lead(self) -> int:
        """Ids that were put before the text of each window: its first token is at this position."""
        return len(self.policy["before"])

    def take(self, index: Int[Tensor, "s"]) -> Corpus:
        """The sequences at `index`, in that order."""
        return with_fields(
            self,
            ids=self.ids[index],
            keep=self.keep[index],
            length=self.length[index],
            document=self.document[index],
            start=self.start[index],
        )

    def shuffled(self, seed: int = 0) -> Corpus:
        """The same tokens of text, each as often as before, at places drawn from `seed`: a control for what order says.

        Pads and added special tokens stay where they are. What a network's rows still show on it stems from single
        tokens and from weights, not from text.
        """
        ids = self.ids.clone()
        text = ids[self.keep]
        ids[self.keep] = text[torch.randperm(len(text), generator=torch.Generator().manual_seed(seed))]
        return with_fields(self, ids=ids, policy={**self.policy, "tokens": "shuffled", "tokens_seed": seed})

    def split(self, share: float = 0.9, seed: int = 0) -> tuple[Corpus, Corpus]:
        """Two corpora: about `share` of the tokens, and the rest, no document in both.

        Documents are dealt in an order drawn from `seed`, to the second part while they fit. A corpus of one document
        is cut in two where `share` of its windows end, which `policy["split"]` then says: neighbouring text is alike,
        so figures on the second part flatter.

        Raises:
            ValueError: if `share` is not inside (0, 1), or there is but one sequence.
        """
        if not 0 < share < 1:
            raise ValueError(f"Corpus.split: share is {share}; it is the part that goes first, between 0 and 1.")
        if len(self) < 2:
            raise ValueError(
                "Corpus.split: one window of tokens cannot be split; give more text, or a shorter context."
            )
        held = [int(i) for i in self.document.unique()]
        if len(held) == 1:
            order = self.start.argsort()
            cut = min(max(round(share * len(order)), 1), len(order) - 1)
            second = torch.zeros(len(self), dtype=torch.bool)
            second[order[cut:]] = True
            how = "by place in one document"
        else:
            sizes = torch.zeros(len(self.names), dtype=torch.int64).index_add_(0, self.document, self.keep.sum(1))
            room = (1 - share) * float(sizes.sum())
            order = torch.randperm(len(held), generator=torch.Generator().manual_seed(seed))
            chosen: list[int] = []
            for document in (held[int(i)] for i in order):
                if sizes[document] <= room:
                    chosen.append(document)
                    room -= float(sizes[document])
            # Where none fits, the smallest goes: better too much held out than nothing.
            chosen = chosen or [min(held, key=lambda document: int(sizes[document]))]
            second = torch.isin(self.document, torch.tensor(chosen))
            how = "by document"
        policy = {**self.policy, "split": how, "split_share": share, "split_seed": seed}
        first, rest = self.take((~second).nonzero()[:, 0]), self.take(second.nonzero()[:, 0])
        return with_fields(first, policy=policy), with_fields(rest, policy=policy)


def tokens(
    tokenizer: Any,
    documents: Sequence[Document] | Sequence[str],
    *,
    context: int,
    limit: int | None = None,
    seed: int = 0,
    policy: Policy | None = None,
) -> Corpus:
    """Cut documents into windows of `context` tokens, in an order drawn from `seed`.

    Before each window goes the tokenizer's beginning-of-sequence token where it has one; an encoder's windows stand
    between its [CLS] and [SEP]. These count towards `context` and are never read as rows. The last window of a document
    is shorter, and padded. Text that looks like a special token (`<|endoftext|>`) is read as text.

    Under a `limit`, documents are tokenized in an order drawn from `seed` until there is four times as much as wanted,
    so that a little of a large text costs little; the windows kept are drawn from those.

    Args:
        tokenizer: of `transformers`.
        documents: documents, or plain texts.
        context: ids in a window.
        limit: tokens of text to keep at most; all without it.
        seed: of the order.
        policy: what is put before windows and left out of them; its context is the one given here.

    Raises:
        ValueError: if `context` or `limit` is too small, or all text together is shorter than one window.
        TypeError: if `documents` is one string.

    Example:
        >>> import transformers
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> letters = {letter: i for i, letter in enumerate("abcd")}
        >>> tokenizer = Tokenizer(models.BPE(letters, []))
        >>> tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> corpus = tokens(transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer), ["abcd cab"], context=4)
        >>> sorted(corpus.ids.tolist()), corpus.n_tokens
        ([[0, 1, 2, 3], [2, 0, 1, 0]], 7)
    """
    if isinstance(documents, str):
        raise TypeError("tokens: documents is one string; give a list, [text], or read a file by documents(path).")
    given = list(_listed(documents))
    policy = with_fields(policy or Policy(context=max(context, 2)), context=max(context, 2))
    before, after = frame(tokenizer, policy)
    body = room(context, before, after)
    if limit is not None and limit < 1:
        raise ValueError(f"tokens: limit is {limit}; give the number of tokens to keep, at least 1, or None for all.")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(given), generator=generator).tolist()
    wanted = None if limit is None else max(_SURPLUS * limit, body)
    pieces: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    n = 0
    for batch in tokenized(tokenizer, ((i, given[i]) for i in order)):
        for document, text_ids in batch:
            if text_ids:
                pieces.append(windows_of(text_ids, document, body))
                n += len(text_ids)
        # Only between batches, so that even a small limit draws on many documents.
        if wanted is not None and n >= wanted:
            break
    if n < body:
        raise ValueError(
            f"tokens: the text has {n} {'token' if n == 1 else 'tokens'}, fewer than the {body} of one window "
            f"(context {context}{f' with {context - body} special tokens' if context > body else ''}); "
            "give more text, or a shorter context."
        )
    text, length, document, start = (torch.cat(columns) for columns in zip(*pieces))
    shuffled = torch.randperm(len(text), generator=generator)
    text, length, document, start = text[shuffled], length[shuffled], document[shuffled], start[shuffled]
    if limit is not None:
        text, length, document, start = _limited(text, length, document, start, limit)
    names = tuple(document.name for document in given)
    said = {"order": "sequences shuffled", "limit": limit, "seed": seed}
    return framed(text, length, document, start, tokenizer, policy, names, said)


def room(context: int, before: Sequence[int], after: Sequence[int]) -> int:
    """Places for text in a window.

    Raises:
        ValueError: if there are fewer than two.
    """
    body = context - len(before) - len(after)
    if body < 2:
        raise ValueError(
            f"tokens: context is {context}, which leaves {body} places for text beside {len(before) + len(after)} "
            "special tokens; give at least 2 more than those."
        )
    return body


def frame(tokenizer: Any, policy: Policy) -> tuple[list[int], list[int]]:
    """Ids before and after each window: BOS where there is one, [CLS] and [SEP] where the tokenizer is an encoder's."""
    if tokenizer is None:
        raise ValueError("tokens: this model reads pictures, not text; harvest capture.Images(...) with it.")
    bos, cls, sep = (getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "cls", "sep"))
    if cls is not None:
        return [cls], [] if sep is None else [sep]
    return ([] if bos is None or not policy.bos else [bos]), []


def tokenized(tokenizer: Any, given: Iterable[tuple[int, Document]]) -> Iterator[list[tuple[int, list[int]]]]:
    """Lists of (document's number, its ids), some documents at a time."""
    numbered = iter(given)
    while batch := list(islice(numbered, _BATCH)):
        # Lone surrogates are no characters, and no tokenizer takes them; they become question marks.
        plain = [(i, d.text.encode("utf-8", "replace").decode("utf-8")) for i, d in batch if not d.messages]
        ids: dict[int, list[int]] = {}
        # split_special_tokens: a text that spells a special token is still text. verbose: a document longer than the
        # model's context is no mistake here.
        if plain:
            found = tokenizer(
                [text for _, text in plain], add_special_tokens=False, split_special_tokens=True, verbose=False
            )
            ids |= dict(zip((i for i, _ in plain), found["input_ids"]))
        for i, document in batch:
            if document.messages:
                ids[i] = _conversation(tokenizer, document)
        yield [(i, ids[i]) for i, _ in batch]


def _conversation(tokenizer: Any, document: Document) -> list[int]:
    """A conversation as the tokenizer's template writes it; its beginning-of-sequence token is the window's to put."""
    if getattr(tokenizer, "chat_template", None) is None:
        raise ValueError(
            f"tokens: '{document.name}' is a conversation and this tokenizer has no chat template; give plain text, or "
            "the tokenizer of a chat model."
        )
    text = tokenizer.apply_chat_template(list(document.messages), tokenize=False)
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids[1:] if ids and ids[0] == getattr(tokenizer, "bos_token_id", None) else ids


def windows_of(text_ids: list[int], document: int, body: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n = -(-len(text_ids) // body)
    padded = torch.zeros(n * body, dtype=torch.int64)
    padded[: len(text_ids)] = torch.tensor(text_ids)
    start = torch.arange(n) * body
    return padded.view(n, body), (len(text_ids) - start).clamp(max=body), torch.full((n,), document), start


def _limited(
    text: Tensor, length: Tensor, document: Tensor, start: Tensor, limit: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    total = length.cumsum(0)
    n = min(int((total < limit).sum()) + 1, len(text))
    length = length[:n].clone()
    length[-1] -= max(int(total[n - 1]) - limit, 0)
    return text[:n], length, document[:n], start[:n]


def framed(
    text: Tensor,
    length: Tensor,
    document: Tensor,
    start: Tensor,
    tokenizer: Any,
    policy: Policy,
    names: tuple[str, ...],
    said: dict[str, Any],
) -> Corpus:
    """Windows with what the policy puts around their text, and its marks on what is kept."""
    before, after = frame(tokenizer, policy)
    pad = getattr(tokenizer, "pad_token_id", None)
    pad = 0 if pad is None else pad
    place = torch.arange(policy.context)
    first = len(before)
    is_text = (place >= first) & (place < first + length[:, None])
    ids = torch.full((len(text), policy.context), pad, dtype=torch.int64)
    ids[:, :first] = torch.tensor(before, dtype=torch.int64)
    ids[:, first : first + text.shape[1]] = text
    ids[~is_text & (place >= first)] = pad
    for i, special in enumerate(after):
        ids[torch.arange(len(ids)), first + length + i] = special
    keep = is_text & (place >= first + policy.drop_first)
    dropped = {int(i) for i in policy.drop_ids}
    if not policy.keep_special:
        # An unknown word is no special token, though it is listed with them.
        dropped |= set(getattr(tokenizer, "all_special_ids", ())) - {getattr(tokenizer, "unk_token_id", None)}
    if dropped:
        keep &= ~torch.isin(ids, torch.tensor(sorted(dropped)))
    spelled = getattr(tokenizer, "convert_ids_to_tokens", list)
    return Corpus(
        ids=ids,
        keep=keep,
        length=length + len(before) + len(after),
        document=document,
        start=start,
        names=names,
        policy={
            "context": policy.context,
            "before": spelled(before),
            "after": spelled(after),
            "pad": pad,
            "windows": "within documents, last one shorter",
            "drop_first": policy.drop_first,
            "drop_ids": list(policy.drop_ids),
            "keep_special": policy.keep_special,
            **said,
        },
    )


def _at_path(given: str | Path, seed: int | None = None) -> Iterator[Document]:
    path = Path(given)
    try:
        exists = path.exists()
    except (OSError, ValueError):  # a text handed over in place of a path: too long a name, or a NUL in it
        exists = False
    if not exists:
        shown = str(given)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        raise FileNotFoundError(
            f"documents: there is no file or folder {shown!r}. Give a path that exists; text itself goes in a list, "
            f"a dataset of the hub as '{_DATASETS}NAME'."
        )
    if path.is_dir():
        return _in_folder(path, seed)
    if not path.is_file():
        raise FormatError(f"documents: '{path}' is a device or a pipe, not a text file; save its text to a file first.")
    return _in_file(path, path.name)


def _in_folder(folder: Path, seed: int | None) -> Iterator[Document]:
    files = _mixed(sorted(path for path in folder.rglob("*") if path.is_file()), seed)
    n_read = 0
    for file in files:
        name = file.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in name.split("/")):
            continue
        if file.suffix not in (".jsonl", ".parquet") and _decoded(file) is None:
            continue
        n_read += 1
        yield from _in_file(file, name)
    if not n_read:
        raise ValueError(
            f"documents: the folder '{folder}' has no text file ({len(files)} files in all, none of them UTF-8 text); "
            "give a folder with text in it."
        )


def _in_file(file: Path, name: str) -> Iterator[Document]:
    if file.suffix == ".jsonl":
        yield from _json_lines(file, name)
    elif file.suffix == ".parquet":
        yield from _parquet(file, name)
    else:
        text = _decoded(file)
        if text is None:
            raise FormatError(
                f"documents: '{file}' is not text in UTF-8, it looks like a binary file; give a text file, or convert "
                "this one to UTF-8."
            )
        yield Document(name, text)


def _decoded(file: Path) -> str | None:
    """The file's text, or None where it is not UTF-8 or holds a NUL, the mark of data."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text.replace("\r\n", "\n")


def _json_lines(file: Path, name: str) -> Iterator[Document]:
    # Line by line, and at line feeds alone: splitlines() would also cut at U+2028, which JSON allows inside a string.
    with file.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise FormatError(
                    f"documents: '{file}' is not text in UTF-8; a .jsonl file has one JSON object a line."
                ) from error
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise FormatError(
                    f"documents: line {number} of '{file}' is not JSON ({error.msg}); mend that line."
                ) from error
            document = _of_row(f"{name}:{number}", row if isinstance(row, dict) else {"text": row})
            if document is None:
                raise FormatError(
                    f"documents: line {number} of '{file}' has no string under 'text' and no conversation under "
                    "'messages'; rename the field to text."
                )
            yield document


def _of_row(name: str, row: Any) -> Document | None:
    """The document of a row: its `text`, or the conversation in its `messages`."""
    text, messages = row.get("text"), row.get("messages")
    if isinstance(text, str):
        return Document(name, text)
    turns = messages if isinstance(messages, (list, tuple)) else ()
    if turns and all(isinstance(turn, dict) and "role" in turn and "content" in turn for turn in turns):
        return Document(name, "", tuple(turns))
    return None


def _parquet(file: Path, name: str) -> Iterator[Document]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
    except pyarrow.ArrowInvalid as error:
        raise FormatError(f"documents: '{file}' is not a Parquet file, or a damaged one ({error}).") from error
    with table:
        column = next((each for each in ("text", "messages") if each in table.schema_arrow.names), None)
        if column is None:
            raise FormatError(
                f"documents: '{file}' has no column 'text', only {', '.join(table.schema_arrow.names)}; "
                "rename the column to text."
            )
        number = 0
        for batch in table.iter_batches(columns=[column]):
            for value in batch.column(column).to_pylist():
                document = _of_row(f"{name}:{number}", {column: str(value) if column == "text" else value})
                if value is not None and document is not None:
                    yield document
                number += 1


def _listed(texts: Iterable[Any]) -> Iterator[Document]:
    for i, text in enumerate(texts):
        if isinstance(text, Document):
            yield text
        elif isinstance(text, str):
            yield Document(f"text {i}", text)
        else:
            raise TypeError(f"item {i} of the list of texts is a {type(text).__name__}; give strings or documents.")


def _dataset_named(named: str, *, streaming: bool) -> Iterator[Document]:
    name, _, split = named.removeprefix(_DATASETS).partition(":")
    if not name:
        raise ValueError(f"documents: '{named}' names no dataset; write {_DATASETS}NAME or {_DATASETS}NAME:SPLIT.")
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"documents: '{named}' needs the datasets library; install it with: pip install 'superscope[models]'."
        ) from error
    options: dict[str, Any] = {"streaming": True} if streaming else {}
    try:
        rows = datasets.load_dataset(name, split=split or "train", **options)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"documents: the dataset '{name}' (split '{split or 'train'}') could not be loaded: {_first_line(error)} "
            "Check its name and the network, or give a local file or folder."
        ) from error
    return _rows(rows, named)


def _rows(rows: Any, said: str) -> Iterator[Document]:
    columns = rows.column_names
    if isinstance(columns, dict):
        raise ValueError(
            f"documents: {said} is several splits ({', '.join(columns)}); choose one, as in dataset['train']."
        )
    if columns is not None and "text" not in columns and "messages" not in columns:
        raise FormatError(
            f"documents: {said} has no column 'text', only {', '.join(columns)}; rename the column to text."
        )
    for i, row in enumerate(rows):
        document = _of_row(f"row {i}", row)
        if document is None:
            raise FormatError(f"documents: row {i} of {said} has no string under 'text'; rename the column to text.")
        yield document


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
