"""A receiver that answers 200 with `{"ok": false}` has not taken the event."""

import json

from wit_world.imports import types


class Setup:
    def configure(self, config: list[tuple[str, str]]) -> None:
        pass


class Classify:
    def classify(self, response: types.Response) -> types.Classified:
        try:
            body = json.loads(response.body)
        except ValueError:
            return types.Classified_Undecided()
        if isinstance(body, dict) and body.get("ok") is False:
            return types.Classified_Failure(body.get("error", "it is not ok"))
        return types.Classified_Undecided()
