"""Groups of settings: frozen, read from sources in one order, with mistakes reported in one sentence."""

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import AliasChoices, ValidationError, ValidatorFunctionWrapHandler, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from conversation_actors.errors import InvalidInputError
from conversation_actors.sources import files, spelling

KEEPS_EMPTY = "an empty text is a value of its own"
"""The annotation of a field for which empty is not the same as unset."""

ENVIRONMENT = "environment"


class _ByFieldName(PydanticBaseSettingsSource):
    """A source that gives another source's values under the fields' own names.

    A source gives a value under whichever of its names the source knows. Releases of pydantic-settings differ in which
    of two names wins, so that the environment could beat a keyword, and a file the environment.
    """

    def __init__(self, settings_class: type[BaseSettings], source: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_class)
        self._source = source

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return what the other source knows about one field."""
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        """Return the other source's values. If it gives a field under two names, the first one counts."""
        told = dict(self._source())
        for name, field in self.settings_cls.model_fields.items():
            choices = field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else []
            values = [told.pop(choice) for choice in (name, *choices) if isinstance(choice, str) and choice in told]
            if values:
                told[name] = values[0]
        return told


class _Variables(EnvSettingsSource):
    """A source of variables that were read already."""

    def __init__(self, settings_class: type[BaseSettings], variables: Mapping[str, str | None]) -> None:
        self._variables = variables
        super().__init__(settings_class)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._variables


class OrderedSettings(BaseSettings):
    """Settings whose sources come in one order: keyword, environment, file, under whichever name each gives a value."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # replaced by one that takes empty as unset
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # replaced by one that tells what is wrong
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keep pydantic's order. Warn about misspelt names here, because everything that is set is at hand."""
        places = dict(places_of(settings_cls))
        _tell_misspelt(places)
        own = {name.lower() for names in names_of(settings_cls).values() for name in names}
        told = [{name: variables[name] for name in own & variables.keys()} for variables in places.values()]
        # a source in which nothing is set costs as much as any other
        read = [_Variables(settings_cls, variables) for variables in told if variables]
        sources = (init_settings, *read, file_secret_settings)
        return tuple(_ByFieldName(settings_cls, source) for source in sources)


class SettingsGroup(OrderedSettings):
    """A frozen group of settings whose mistakes are `InvalidInputError`; also a base for other packages' settings."""

    also_known: ClassVar[tuple[str, ...]] = ()
    """Variables that begin like settings but are none: our own processes tell each other something by them."""

    if not TYPE_CHECKING:  # type checkers know the fields, and would see only **values

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except SettingsError as error:
                # Its text names the field and the source, and holds no value.
                field = re.search(r'"(\w+)"', str(error))
                name = field.group(1) if field else type(self).__name__
                message = f"{name} ({origin(type(self), name)}): not JSON; set its fields one by one"
                raise InvalidInputError(message, field=name) from None

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Take what another process had, perhaps with another version of this package.

        Missing fields get their defaults, unknown ones stay as attributes, and nothing is validated.
        """
        super().__setstate__(state)
        for name, field in type(self).model_fields.items():
            if name not in self.__dict__:
                self.__dict__[name] = field.get_default(call_default_factory=True, validated_data=self.__dict__)
        private = {name: attribute.get_default() for name, attribute in type(self).__private_attributes__.items()}
        object.__setattr__(self, "__pydantic_private__", {**private, **(self.__pydantic_private__ or {})} or None)

    @model_validator(mode="wrap")
    @classmethod
    def _typed_error(cls, data: Any, handler: ValidatorFunctionWrapHandler) -> Self:
        try:
            return handler(data)  # type: ignore[no-any-return]  # pydantic types the handler as Any
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or cls.__name__
            told = first["msg"].removeprefix("Value error, ")
            message = f"{field} ({origin(cls, field.partition('.')[0])}): {told}"
            raise InvalidInputError(message, field=field) from None


def settings_config(prefix: str = "") -> SettingsConfigDict:
    """Return how to read a group of settings: variables with this prefix, and no value in an error's text."""
    return SettingsConfigDict(
        env_prefix=prefix,
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,
    )


@cache
def names_of(group: type[BaseSettings]) -> dict[str, tuple[str, ...]]:
    """Return the variables of a group's fields, by field. The first name of a field is the one to use in messages."""
    prefix = group.model_config.get("env_prefix", "")
    found = {}
    for field, described in group.model_fields.items():
        alias = described.validation_alias
        choices = [one for one in alias.choices if isinstance(one, str)] if isinstance(alias, AliasChoices) else []
        found[field] = tuple(name.upper() for name in choices or [f"{prefix}{field}"])
    return found


def all_names() -> set[str]:
    """Return the variables of every group defined in this process, by whichever package, and those `also_known`."""
    groups = list(_below(SettingsGroup))
    fields = {name for group in groups for names in names_of(group).values() for name in names}
    return fields | {name for group in groups for name in group.also_known}


def origin(group: type[BaseSettings], field: str) -> str:
    """Return where a field's value was read (``environment: CONVERSATION_TTL``); if it was not, where it would be."""
    names = names_of(group).get(field, (f"{group.model_config.get('env_prefix', '')}{field}".upper(),))
    for place, variables in places_of(group):
        for name in names:
            if name.lower() in variables:
                return f"{place}: {name}"
    return f"{ENVIRONMENT}: {names[0]}"


def places_of(group: type[BaseSettings]) -> Iterator[tuple[str, Mapping[str, str | None]]]:
    """Yield what is set in the environment and in each file, by names in lower case; empty counts as unset."""
    keeping = {
        name
        for field, names in names_of(group).items()
        if KEEPS_EMPTY in group.model_fields[field].metadata
        for name in names
    }
    yield ENVIRONMENT, _without_empty(os.environ, keeping)
    for file in files.FILES:
        variables = files.read(file)
        _check_values(file, variables, group)
        yield file, _without_empty(variables, keeping)


def _without_empty(variables: Mapping[str, str | None], keeping: set[str]) -> dict[str, str | None]:
    return {
        name.lower(): value
        for name, value in variables.items()
        if value is not None and (value.strip() or name.upper() in keeping)
    }


def _check_values(file: str, variables: Mapping[str, str | None], group: type[BaseSettings]) -> None:
    """Refuse a setting's name without a value; the names of other programs need none."""
    ours = {name for names in names_of(group).values() for name in names}
    for name, value in variables.items():
        if value is None and name.upper() in ours:
            files.refuse(Path(file), f"{name} has no value; write {name}=…")


def _tell_misspelt(places: Mapping[str, Mapping[str, str | None]]) -> None:
    known = frozenset(all_names())
    for place, variables in places.items():
        for name, nearest in spelling.misspelt([name.upper() for name in variables], known):
            spelling.warn(name, place, nearest)


def _below(group: type[SettingsGroup]) -> Iterator[type[SettingsGroup]]:
    for one in group.__subclasses__():
        yield one
        yield from _below(one)
