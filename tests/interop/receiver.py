"""Receives deliveries and verifies each with published libraries.

Prints the port, then reads lines of JSON from stdin, each what to verify with at a path: {"path",
"scheme", "key"}, and echoes each. Prints a line of JSON for each delivery and library: {"id",
"path", "library", "ok", "error"}.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import slack_sdk.signature
import standardwebhooks
import stripe
import svix

TRUSTED = {}
REFUSED = set()
PRINTING = threading.Lock()


def by_standardwebhooks(key, body, headers):
    standardwebhooks.Webhook(key).verify(body, headers)


def by_svix(key, body, headers):
    svix.Webhook(key).verify(body, headers)


def by_stripe(key, body, headers):
    stripe.WebhookSignature.verify_header(body.decode(), headers["stripe-signature"], key, 300)


def by_slack(key, body, headers):
    if not slack_sdk.signature.SignatureVerifier(key).is_valid_request(body, headers):
        raise ValueError("is_valid_request says no")


LIBRARIES = {
    "standard": {"py standardwebhooks": by_standardwebhooks, "py svix": by_svix},
    "standard-ed25519": {"py standardwebhooks": by_standardwebhooks, "py svix": by_svix},
    "standard-svix": {"py svix": by_svix},
    "stripe": {"py stripe": by_stripe},
    "slack": {"py slack_sdk": by_slack},
}


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        trusted = TRUSTED[self.path]
        for name, verify in LIBRARIES[trusted["scheme"]].items():
            identity = {"id": headers.get("webhook-id"), "path": self.path, "library": name}
            verdict = {**identity, "ok": True, "error": None}
            try:
                verify(trusted["key"], body, headers)
            except Exception as error:  # whatever a library raises is a refusal
                verdict.update(ok=False, error=repr(error))
            say(verdict)
        # The first attempt of these is refused, so that a retry is verified too.
        retry = b'"refuse_first"' in body and headers["webhook-id"] not in REFUSED
        REFUSED.add(headers["webhook-id"])
        self.send_response(503 if retry else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def say(it):
    with PRINTING:
        print(json.dumps(it), flush=True)


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
for line in sys.stdin:
    trusted = json.loads(line)
    TRUSTED[trusted["path"]] = trusted
    say({"trusted": trusted["path"]})
