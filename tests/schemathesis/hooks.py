"""How Schemathesis writes the bodies that it has no words for."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    events = value if isinstance(value, list) else [value]
    if isinstance(value, str):
        return value.encode()
    return b"".join(json.dumps(it).encode() + b"\n" for it in events)


@schemathesis.serializer("application/wasm")
def component(context, value):
    return value if isinstance(value, bytes) else str(value).encode()
