"""Adds the member `source` to the data."""

import json

from wit_world.imports import types


class Setup:
    def configure(self, config: list[tuple[str, str]]) -> None:
        global source
        source = dict(config).get("source", "hookgate")


class Transform:
    def transform(self, event: types.Event) -> types.Transformed:
        data = json.loads(event.payload)
        data["source"] = source
        return types.Transformed_Replace(
            types.Outgoing(
                payload=json.dumps(data).encode(),
                content_type="application/json",
                headers=[],
                path_suffix=None,
            )
        )
