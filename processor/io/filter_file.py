"""The file of ``filters apply``: YAML to a `FilterFile` and back, each mistake named where it stands."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from processor.failures import Failure
from schemas import FilterFile, mistakes

_KINDS = {"velocity_filters": "velocity filter", "metadata_filters": "metadata filter"}
_LINE_BREAKS = frozenset("\x85\u2028\u2029")


class BadFile(Failure):
    """The file cannot be applied; the text names the mistakes, one to a line."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key may not be given twice: the first would silently be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - the library's signature
        seen = set()
        # A tag may call anything a mapping: the library refuses what is none.
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key_node, yaml.ScalarNode) and key_node.value in seen:
                line = key_node.start_mark.line + 1
                raise BadFile(f"line {line}: {key_node.value} is given twice")
            seen.add(str(key_node.value))
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - the library's signature
        """Raises `YAMLError`, naming the line, where the library trips over a text that is not what its tag says."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:
            said = f"this is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark) from error


def _no_set(loader: _Loader, node: yaml.Node) -> Any:
    raise yaml.constructor.ConstructorError(None, None, "a set has no order", node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:set", _no_set)


class _Dumper(yaml.SafeDumper):
    """Safe YAML that quotes the line breaks it would else write bare, and read as spaces."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _LINE_BREAKS.intersection(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text)


def read(path: Path) -> FilterFile:
    """Raises `BadFile`."""
    try:
        document = yaml.load(path.read_text("utf-8"), _Loader)  # noqa: S506 - it is a SafeLoader
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise BadFile(f"cannot read {path}: {error}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise BadFile(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return FilterFile.model_validate(document)
    except ValidationError as error:
        faults = [_sentence(*fault, document) for fault in mistakes.innermost(error)]
        raise BadFile("\n".join(f"{path}: {fault}" for fault in faults)) from error


def write(document: Mapping[str, Any]) -> str:
    """A `FilterFile`, as a document, as YAML that `read` reads as the same."""
    return yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _sentence(place: Sequence[int | str], message: str, document: Any) -> str:
    """``org unit acme, velocity filter vf-10, threshold: …`` for where in the document it is."""
    words: list[str] = []
    steps = list(place)
    if steps[:1] == ["org_units"] and len(steps) > 1:
        words.append(f"org unit {steps[1]}")
        kind = _KINDS.get(str(steps[2])) if len(steps) > 3 else None  # noqa: PLR2004 - its number
        if kind:
            words.append(f"{kind} {_name(document, steps[:4])}")
        steps = steps[4:] if kind else steps[2:]
    return mistakes.sentence([*words, *mistakes.fields(steps)], message, "the file")


def _name(document: Any, place: Sequence[int | str]) -> str:
    """The id of the filter, or its place where it has none."""
    found: Any = document
    for step in place:
        inner = found
        found = inner[step] if isinstance(found, Mapping | list) else None
    known = isinstance(found, Mapping) and isinstance(found.get("id"), str)
    return found["id"] if known else f"number {int(place[-1]) + 1}"
