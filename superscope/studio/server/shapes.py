"""What does the studio's server say and hear? Every shape of its JSON; `web/src/data/api.ts` is made from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Shape(BaseModel):
    """A JSON object of exactly these keys."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Problem(Shape):
    """Why a request was refused, with what to do; the body of every answer that is no success."""

    error: str


class Session(Shape):
    """What this server is and what it will do."""

    version: str
    """Of Superscope."""
    folder: str
    """Where new runs are written."""
    can_start: bool
    """Whether studies can be started here."""
    why_not: str
    """Why they cannot; empty where they can."""
    opens: str
    """Id of the run that the studio was started with; empty where it was a folder or nothing."""


class RunEntry(Shape):
    """One run in the list."""

    id: str
    """Its place in addresses."""
    title: str
    kind: str
    """The study that made it."""
    state: Literal["finished", "unfinished", "damaged"]
    created: str
    finished: str
    bundled: bool
    """It travels in the package and cannot be written to."""
    error: str
    """Why it cannot be read; empty where it can."""


class RunList(Shape):
    """All runs that the server sees, newest first, those in the package last."""

    runs: list[RunEntry]
    left_out: int
    """Runs beyond the most that are listed."""


class Measurement(Shape):
    """One number beside what was possible: see superscope.core.Measurement."""

    name: str
    value: float | None
    unit: str
    n: int
    of: str
    low: float | None
    high: float | None
    how: str
    reference: float | None
    reference_is: str
    chance: float | None
    chance_is: str
    at: dict[str, str | int | float]
    caution: str


class LeftOut(Shape):
    """A table of which only the first rows by importance are there."""

    kept: int
    of: int


class Drawing(Shape):
    """A drawing that lies in the run's folder."""

    name: str
    shows: str
    svg: str
    """An SVG file in base64."""


class Word(Shape):
    """What a measurement is called and means: see superscope/measure/words."""

    label: str
    heading: str
    """The label where there is room for a column's head only."""
    definition: str
    reading: str
    """How to read it, for someone who has never met it."""


class Head(Shape):
    """A run but for its tables' rows and its arrays' numbers."""

    title: str
    kind: str
    findings: list[str]
    measurements: list[Measurement]
    settings: dict[str, Any]
    environment: dict[str, Any]
    tables: dict[str, int]
    """Rows of each table."""
    arrays: dict[str, list[int]]
    """Shape of each array."""
    left_out: dict[str, LeftOut]
    figures: list[Drawing]
    words: dict[str, Word]
    """The words of the names above, of those that have one."""
    problems: list[str]
    """What of the run cannot be read, in sentences; the rest stands without it."""
    finished: bool
    """Whether the study has ended; where it has not, this is what it has kept so far."""
    reads: list[str]
    """Sites, each with a space and its model, at which the server can read a text with the run's dictionary."""


class Rows(Shape):
    """Rows of a table, column by column."""

    columns: dict[str, list[Any]]
    matching: int
    """Rows that the conditions hold for, of which these are some."""


class Packed(Shape):
    """An array: its numbers little-endian, in row-major order, in base64."""

    dtype: Literal["float32", "float64", "int32", "uint8"]
    shape: list[int]
    base64: str


class Columns(Shape):
    """Columns of numbers, for drawings of many points."""

    columns: dict[str, Packed]
    """NaN where a number is missing."""
    matching: int


class Found(Shape):
    """The answer to a search in a table."""

    matching: int
    """Rows found."""
    of: int
    """Rows searched."""
    keys: Packed
    """Names of all rows found, in order."""
    columns: dict[str, list[Any]]
    """The first of them, whole."""
    seconds: float
    """That the server took."""


class AskText(Shape):
    """A text to be read with a run's model."""

    site: str
    model: str
    """As the run calls it: trained or control."""
    text: str


class TextReading(Shape):
    """What a run's dictionary answers to a text, token by token."""

    tokens: list[str]
    latents: list[list[int]]
    """Of each token, the strongest first."""
    values: list[list[float]]
    active: list[int]
    """How many are active at each token."""
    cut: bool
    """Whether the text went on beyond what was read."""
    seconds: float


class Setting(Shape):
    """One field of a study's form: see superscope.studies.settings."""

    name: str
    kind: Literal["whole", "number", "text", "flag"]
    many: bool
    """It holds several values."""
    optional: bool
    """It may be null."""
    required: bool
    default: Any
    choices: list[str | int | float]
    """The values there are, where they are listed."""
    limits: list[str]
    """As they follow "must be"."""
    low: float | None
    high: float | None
    help: str


class StudyForm(Shape):
    """A study that can be started."""

    command: str
    summary: str
    about: str
    settings: list[Setting]


class StartJob(Shape):
    """A study to start; what is not set is as it is by default."""

    study: str
    settings: dict[str, Any] = {}


JobState = Literal["queued", "running", "finished", "failed", "cancelled", "lost"]


class Job(Shape):
    """One command that runs, waits or has ended. "lost": its process is gone and did not say why."""

    id: str
    study: str
    settings: dict[str, Any]
    command: str
    """The same in a terminal."""
    run: str
    """Id of the run it writes."""
    state: JobState
    created: str
    stage: str
    detail: str
    share: float | None
    """Of its stage; null while nothing says so."""
    whole: float | None
    """Of all its stages; null where the study cannot say."""
    left: float | None
    """Seconds that it will still take; null where nobody knows."""
    error: str
    can_resume: bool


class JobList(Shape):
    """All jobs, those that were asked for last before the others."""

    jobs: list[Job]


Words = Annotated[str, Field(max_length=500)]
"""A text that a request may hold."""


class Try(Shape):
    """What is tried on the bench; see superscope.studies.Bench. What is not set is as it is by default."""

    model: Annotated[str, Field(max_length=500)] = "pocket"
    site: Annotated[str, Field(max_length=200)] = ""
    dictionary: Annotated[str, Field(max_length=500)] = ""
    """Id of a dictionary in a run; empty for none."""
    targets: Annotated[list[Annotated[str, Field(max_length=40)]], Field(min_length=1, max_length=4)]
    towards: Annotated[list[Words], Field(max_length=40)] = []
    away: Annotated[list[Words], Field(max_length=40)] = []
    edit: Literal["add", "norm_kept", "least", "project_out", "gated"] = "add"
    doses: Annotated[list[float], Field(min_length=1, max_length=8)] = [0.125, 0.25, 0.5, 1.0]
    unit: Literal["norms", "nats"] = "norms"
    prompts: Annotated[list[Words], Field(max_length=4)] = ["The"]
    new_tokens: Annotated[int, Field(ge=0, le=64)] = 24
    controls: Annotated[int, Field(ge=2, le=8)] = 3
    tokens: Annotated[int, Field(ge=200, le=2000)] = 600
    matrix: bool = True
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0


class Place(Shape):
    """A dictionary in a run, that can be compared or steered by."""

    id: str
    """Its place in addresses: the run, or the run, a colon and a folder in it."""
    title: str
    site: str
    """Where it was learned, where it says so."""


class BenchState(Shape):
    """What the bench does, and what it has."""

    can_try: bool
    why_not: str
    """Why nothing can be tried; empty where it can."""
    state: Literal["idle", "working", "failed"]
    trial: str
    """Id of what is being tried, or was last."""
    stage: str
    done: int
    total: int
    error: str
    """Why the last trial failed; empty where it did not."""
    model: str
    """The model that is kept; empty where none is."""
    site: str
    kept: list[str]
    """Ids of the trials whose answers can be asked for."""
    concepts: list[str]
    edits: list[str]
    dictionaries: list[Place]


class Kept(Shape):
    """The run that a trial was kept as."""

    run: str


class Comparable(Shape):
    """What can be compared: runs, and dictionaries in them."""

    sources: list[Place]


ROOTS = (
    *(Problem, Session, RunList, Head, Rows, Packed, Columns, Found),
    *(StudyForm, StartJob, JobList, AskText, TextReading),
    *(Try, BenchState, Kept, Comparable),
)
"""What TypeScript needs to know; what they are made of comes along."""
