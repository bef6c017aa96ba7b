"""Writes web/src/data/api.ts, the studio's shapes in TypeScript, from superscope/studio/server/shapes.py.

`python scripts/api_types.py` writes it; a test says when it no longer matches.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from superscope.studio.server import shapes

PATH = Path(__file__).resolve().parents[1] / "web" / "src" / "data" / "api.ts"
_BASIC = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def kind(schema: dict[str, Any]) -> str:
    """A JSON schema as a type of TypeScript."""
    match schema:
        case {"$ref": where}:
            return where.rsplit("/", 1)[1]
        case {"enum": values}:
            return " | ".join(json.dumps(value) for value in values)
        case {"const": value}:
            return json.dumps(value)
        case {"anyOf": parts}:
            return " | ".join(dict.fromkeys(kind(part) for part in parts))
        case {"type": "array", **more}:
            inner = kind(more.get("items", {}))
            return f"({inner})[]" if " " in inner else f"{inner}[]"
        case {"type": "object", "additionalProperties": dict() as values}:
            return f"Record<string, {kind(values)}>"
        case {"type": "object"}:
            return "Record<string, Cell>"
        case {"type": basic}:
            return _BASIC[basic]
    # Whatever JSON can say.
    return "Cell"


def text() -> str:
    """The whole file."""
    _, schema = models_json_schema([(root, "serialization") for root in shapes.ROOTS])
    parts = [
        "/** Made by scripts/api_types.py from superscope/studio/server/shapes.py; not to be changed by hand. */",
        "",
        "/** Whatever JSON can say. */",
        "export type Cell = string | number | boolean | null | Cell[] | { [key: string]: Cell };",
    ]
    for name, model in sorted(schema["$defs"].items()):
        about = " ".join(model.get("description", "").split())
        parts += ["", f"/** {about} */", f"export interface {name} {{"]
        for key, field in model["properties"].items():
            said = getattr(shapes, name).model_fields[key].description
            parts += [f"  /** {' '.join(said.split())} */"] if said else []
            parts.append(f"  {key}: {kind(field)};")
        parts.append("}")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
