"""Receives deliveries and verifies each with published libraries.

Prints the port, then reads the endpoint's secret from stdin, then prints a line of JSON for each
delivery and library: {"id", "library", "ok", "error"}.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import standardwebhooks
import svix

LIBRARIES = {"py standardwebhooks": standardwebhooks.Webhook, "py svix": svix.Webhook}
REFUSED = set()
PRINTING = threading.Lock()


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        for name, library in LIBRARIES.items():
            verdict = {"id": headers.get("webhook-id"), "library": name, "ok": True, "error": None}
            try:
                library(SECRET).verify(body, headers)
            except Exception as error:  # whatever a library raises is a refusal
                verdict.update(ok=False, error=repr(error))
            with PRINTING:
                print(json.dumps(verdict), flush=True)
        # The first attempt of these is refused, so that a retry is verified too.
        retry = b'"refuse_first"' in body and headers["webhook-id"] not in REFUSED
        REFUSED.add(headers["webhook-id"])
        self.send_response(503 if retry else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
SECRET = sys.stdin.readline().strip()
server.serve_forever()
