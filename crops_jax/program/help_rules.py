"""The rules by which the help text shows the fields of arguments: types without None, and sentences as paragraphs."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import get_args

from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructTypeInfo,
    UnsupportedTypeAnnotationError,
)


def help_rules() -> ConstructorRegistry:
    """Returns the rules, which tyro.cli takes. They change what is shown, and not what is accepted."""
    rules = ConstructorRegistry()
    asked: list[bool] = []

    @contextmanager
    def by_the_rules_of_tyro() -> Iterator[None]:
        asked.append(True)
        try:
            yield
        finally:
            asked.pop()

    @rules.primitive_rule
    def without_none(
        info: PrimitiveTypeInfo,
    ) -> PrimitiveConstructorSpec | UnsupportedTypeAnnotationError | None:
        if asked or type(None) not in get_args(info.type):
            return None
        with by_the_rules_of_tyro():
            spec = ConstructorRegistry.get_primitive_spec(info)
        if not isinstance(spec, PrimitiveConstructorSpec):
            return spec
        return dataclasses.replace(spec, metavar=_shown(spec.metavar))

    @rules.struct_rule
    def with_paragraphs(info: StructTypeInfo) -> StructConstructorSpec | None:
        if asked or not dataclasses.is_dataclass(info.type):
            return None
        with by_the_rules_of_tyro():
            spec = ConstructorRegistry.get_struct_spec(info)
        if not isinstance(spec, StructConstructorSpec):
            return None
        fields = [dataclasses.replace(field, helptext=_paragraph(field.helptext)) for field in spec.fields]
        return dataclasses.replace(spec, fields=tuple(fields))

    return rules


def _shown(metavar: str) -> str:
    """Returns the form of an optional value without None, which the default says already."""
    shown = metavar.replace("{None}|", "").replace("{None,", "{")
    return shown[1:-1] if shown.startswith("{[") and shown.endswith("]}") else shown


def _paragraph(text: str | Callable[[], str | None] | None) -> Callable[[], str | None]:
    """Returns a text that is read when it is needed, with its lines joined, so that the page can break them."""

    def read() -> str | None:
        found = text() if callable(text) else text
        return None if found is None else " ".join(found.split())

    return read
