"""The rules by which the help text shows the fields of arguments: types without None, sentences as paragraphs, and
flags in groups.

A dataclass of arguments can have the class attribute FLAG_GROUPS, a mapping of the title of a group to the names of the
fields whose flags the group shows. The other fields are shown first, among the options without a title.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, cast, get_args

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
    UnsupportedTypeAnnotationError,
)

FlagGroups = Mapping[str, tuple[str, ...]]
"""The type of FLAG_GROUPS."""


class _Group:
    """A part of the fields of a dataclass, which tyro shows like a nested dataclass without a prefix."""

    fields: tuple[StructFieldSpec, ...] = ()


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
        if isinstance(info.type, type) and issubclass(info.type, _Group):
            return StructConstructorSpec(instantiate=dict, fields=info.type.fields)
        if asked or not dataclasses.is_dataclass(info.type):
            return None
        with by_the_rules_of_tyro():
            spec = ConstructorRegistry.get_struct_spec(info)
        if not isinstance(spec, StructConstructorSpec):
            return None
        fields = [dataclasses.replace(field, helptext=_paragraph(field.helptext)) for field in spec.fields]
        return _in_groups(dataclasses.replace(spec, fields=tuple(fields)), getattr(info.type, "FLAG_GROUPS", {}))

    return rules


def _in_groups(spec: StructConstructorSpec, groups: FlagGroups) -> StructConstructorSpec:
    """Returns a specification that takes the same flags, and shows those of each group in a box of their own."""
    grouped = {name for names in groups.values() for name in names}
    by_name = {field.name: field for field in spec.fields}

    def instantiate(**values: Any) -> Any:
        flat = {name: value for name, value in values.items() if name not in groups}
        for title in groups:
            flat |= values[title]
        return spec.instantiate(**flat)

    fields: list[StructFieldSpec] = []
    for title, names in groups.items():
        kind = type("_Group", (_Group,), {"fields": tuple(by_name[name] for name in names)})
        shown = cast(Any, Annotated[kind, tyro.conf.arg(help=""), tyro.conf.OmitArgPrefixes])
        fields.append(StructFieldSpec(name=title, type=shown, default=tyro.MISSING, helptext=""))
    # The groups come first, so that they stand above those of nested dataclasses.
    fields += [field for field in spec.fields if field.name not in grouped]
    return dataclasses.replace(spec, fields=tuple(fields), instantiate=instantiate)


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
