"""The JSON documents of the command line, held against the schemas in docs/schemas."""

import json
from pathlib import Path
from typing import Any

import jsonschema
from referencing import Registry, Resource

DIRECTORY = Path(__file__).parent.parent / "docs" / "schemas"


def loaded(name: str) -> Any:
    """Give a schema."""
    return json.loads((DIRECTORY / f"{name}.json").read_text(encoding="utf-8"))


def valid(name: str, document: Any, *, part: str | None = None) -> Any:
    """Hold a document against its schema, or against one of the schema's definitions, and give it back."""
    schema = loaded(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    if part is not None:
        schema = {"$defs": schema["$defs"], "$ref": f"#/$defs/{part}"}
    others = [(path.name, Resource.from_contents(loaded(path.stem))) for path in DIRECTORY.glob("*.json")]
    registry: Registry[Any] = Registry().with_resources(others)
    formats = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(schema, registry=registry, format_checker=formats).validate(document)
    return document
