"""Delivers only events whose data has `"urgent": true`, or all if `all` is configured."""

import json

from wit_world.imports import types


class Setup:
    def configure(self, config: list[tuple[str, str]]) -> None:
        global deliver_all
        deliver_all = dict(config).get("all") == "true"


class Filter:
    def filter(self, event: types.Event) -> types.Filtered:
        data = json.loads(event.payload)
        if deliver_all or data.get("urgent") is True:
            return types.Filtered_Deliver()
        return types.Filtered_Drop("it is not urgent")
