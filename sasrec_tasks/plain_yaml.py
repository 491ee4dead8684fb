"""YAML as people write settings and schemas: plain values, without what makes a small text large or ambiguous."""

from __future__ import annotations

from collections import Counter
from typing import Any

import yaml


def load(text: str) -> Any:
    """The one document of a text.

    Aliases are refused, since ten lines of them stand for gigabytes, and so is a key that is twice in a mapping,
    of which YAML's own loader takes the last.

    Raises:
        ValueError: no YAML, one of these, a tag, a number or day that is none, or nested too deeply.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except yaml.MarkedYAMLError as error:
        raise ValueError(
            _said(error)
        ) from None  # with the text around it, of which a part may be a password's
    except (yaml.YAMLError, OverflowError) as error:
        raise ValueError(str(error)) from error


def _said(error: yaml.MarkedYAMLError) -> str:
    """What is wrong and where, without the text around it."""
    mark = error.problem_mark or error.context_mark
    said = " ".join(filter(None, (error.context, error.problem)))
    return f"{said} (line {mark.line + 1}, column {mark.column + 1})" if mark else said


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, f"found the alias *{event.anchor}: write its value out", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        times = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, number in times.items():
            if number > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"found {key!r} {number} times: leave one of them", node.start_mark
                )
        return super().construct_mapping(node, deep)
