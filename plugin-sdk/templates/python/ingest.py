"""Takes only events whose data has an `id`; puts `prefix`, if configured, before their type."""

import json

from wit_world.imports import types


class Setup:
    def configure(self, config: list[tuple[str, str]]) -> None:
        global prefix
        prefix = dict(config).get("prefix")


class Ingest:
    def ingest(self, event: types.Incoming) -> types.Ingested:
        data = json.loads(event.payload)
        if data.get("id") is None:
            return types.Ingested_Reject("the data has no `id`")
        if prefix is None:
            return types.Ingested_Accept()
        return types.Ingested_Replace(
            types.Replacement(
                event_type=prefix + event.event_type,
                payload=event.payload,
                metadata=event.metadata,
                ordering_key=event.ordering_key,
            )
        )
