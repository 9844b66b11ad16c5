"""CloudEvents' own libraries, for Python and JavaScript, make events in all three HTTP forms, and
read what is delivered of them in both formats.
"""

import base64
import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cloudevents.core.bindings.http import HTTPMessage, from_http, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

BATCH = "application/cloudevents-batch+json; charset=utf-8"
FORMATS = ["cloudevents", "cloudevents-binary"]
# Attributes in ASCII: the library for JavaScript does not percent-encode headers, nor decode them.
EVENTS = [
    {"data": {"n": 1}},
    {"data": {"text": "žluťoučký kůň 🐎"}, "subject": "order/7", "time": "2026-01-31T12:00:00.5Z"},
    {"data": {"list": [1, None]}, "comexampleextension": "value", "dataschema": "urn:schema:1"},
    {"data": {"n": 1.5}, "datacontenttype": "application/vnd.shop+json"},
]
# The gateway carries JSON; of anything else it says so.
REFUSED = {"data": "only text", "datacontenttype": "text/plain"}
JSON = JSONFormat()


def packed(headers, body):
    return {"headers": dict(headers), "body": base64.b64encode(body).decode()}


class Python:
    def make(self, event):
        attributes = {"specversion": "1.0", "datacontenttype": "application/json", **event}
        data = attributes.pop("data", None)
        if "time" in attributes:
            attributes["time"] = datetime.fromisoformat(attributes["time"])
        event = CloudEvent(attributes, data)
        message = lambda it: packed(it.headers, it.body)
        return {
            "structured": message(to_structured(event, JSON)),
            "binary": message(to_binary(event, JSON)),
        }

    def read(self, message):
        body = base64.b64decode(message["body"])
        event = from_http(HTTPMessage(message["headers"], body), JSON, CloudEvent)
        told = {**event.get_attributes(), "data": event.get_data()}
        if "time" in told:
            told["time"] = told["time"].isoformat()
        return told


class Node:
    def __init__(self, script):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(["node", script], text=True, **pipes)

    def ask(self, task, **what):
        self.process.stdin.write(json.dumps({"task": task, **what}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def make(self, event):
        return self.ask("make", event={"datacontenttype": "application/json", **event})

    def read(self, message):
        return self.ask("read", **message)


class Inbox:
    """Takes every request, and keeps it under its path."""

    def __init__(self):
        inbox = self
        self.got = {format: [] for format in FORMATS}

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                inbox.got[self.path[1:]].append(packed(headers, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.base = f"http://127.0.0.1:{self.server.server_address[1]}/"


def same_time(one, other):
    return datetime.fromisoformat(one) == datetime.fromisoformat(other)


def check(api, wait_for, key, script):
    """How many messages were taken, delivered and read as they were made."""
    inbox, makers = Inbox(), {"python": Python(), "node": Node(script)}
    for format in FORMATS:
        endpoint = {"url": inbox.base + format, "format": format, "event_types": ["ce.**"]}
        api.call("POST", "endpoints", endpoint)
    made = {}

    def publish(headers, body):
        headers = {**headers, "authorization": f"Bearer {key}"}
        request = urllib.request.Request(api.base + "events", body, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, b""
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def accepted(headers, body):
        status, problem = publish(headers, body)
        if status != 202:
            sys.exit(f"{status} {problem.decode()}: {headers} {body.decode()}")

    for name, maker in makers.items():
        batch = []
        for number, event in enumerate(EVENTS):
            for form in ["structured", "binary", "batch"]:
                id = f"{name}-{form}-{number}"
                named = {"id": id, "source": f"/{name}", "type": f"ce.{form}", **event}
                made[id] = named
                messages = maker.make(named)
                if form == "batch":
                    batch.append(base64.b64decode(messages["structured"]["body"]))
                else:
                    message = messages[form]
                    accepted(message["headers"], base64.b64decode(message["body"]))
        accepted({"content-type": BATCH}, b"[" + b",".join(batch) + b"]")
        for message in maker.make({"id": "no", "source": "/no", "type": "ce.no", **REFUSED}).values():
            status, problem = publish(message["headers"], base64.b64decode(message["body"]))
            if status != 422 or b"/datacontenttype" not in problem:
                sys.exit(f"{name}'s text was not refused as such: {status} {problem.decode()}")

    for format, got in inbox.got.items():
        wait_for(f"all {len(made)} events as {format}", lambda: len(got) >= len(made))
        for message in got:
            for name, maker in makers.items():
                told = maker.read(message)
                expected = made[told["id"]]
                for attribute, value in expected.items():
                    given = told.get(attribute)
                    same = same_time if attribute == "time" else lambda one, other: one == other
                    if given is None or not same(given, value):
                        sys.exit(f"{format} as {name} reads it: {attribute} of {told} is not {value!r}")
    makers["node"].process.terminate()
    inbox.server.shutdown()
    return len(FORMATS) * len(made) * len(makers)
