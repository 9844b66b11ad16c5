"""Sends each event to its country's path below the endpoint's URL: `/hooks` becomes `/hooks/de`.

Config: `field` (where the country is, default `country`; a dot leads inward), `known` (comma
separated: countries that have a path; default: all), `other` (the path of all others; without it
they are dropped).
"""

import json

from wit_world.imports import types


class Setup:
    """Takes what the plugin is configured with."""

    def configure(self, config: list[tuple[str, str]]) -> None:
        global field, known, other
        given = dict(config)
        field = given.get("field", "country").split(".")
        known = {it.strip().lower() for it in given.get("known", "").split(",") if it.strip()}
        other = given.get("other")


class Transform:
    """Says where each event goes."""

    def transform(self, event: types.Event) -> types.Transformed:
        country = find(json.loads(event.payload))
        path = country if not known or country in known else None
        if path is None or not path.isalpha():
            path = other
        if path is None:
            return types.Transformed_Drop(f"no path for {country or 'an event without a country'}")
        return types.Transformed_Replace(
            types.Outgoing(
                payload=event.payload,
                content_type=event.content_type,
                headers=[],
                path_suffix=f"/{path}",
            )
        )


def find(data) -> str:
    for name in field:
        data = data.get(name) if isinstance(data, dict) else None
    return data.lower() if isinstance(data, str) else ""
