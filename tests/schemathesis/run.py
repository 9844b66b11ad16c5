"""Lets Schemathesis loose on a gateway of its own, for about two minutes, by the document that the
gateway serves. Fails on a 5xx, on a status or media type that the document does not tell of, and on
an answer that breaks its schema."""

import json
import os
import subprocess
import sys
import tempfile

KEY = "operator-key-of-schemathesis"
CHECKS = ",".join(
    ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
)
# Streams without an end, and a compiler that each random component would keep busy.
LEFT_OUT = ["/v1/tenants/{tenant}/events/tail"]
# 508 answers a delivery that goes in a circle: it is no fault of the gateway's.
CONFIG = '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", "508"]\n'


def main(binary: str, schemathesis: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "HOOKGATE_OPERATOR_KEY": KEY}
        gateway = subprocess.Popen(
            [binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", os.path.join(folder, "data")],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        try:
            with open(os.path.join(folder, "schemathesis.toml"), "w", encoding="utf-8") as config:
                config.write(CONFIG)
            address = json.loads(gateway.stdout.readline())["listening"]
            command = [
                schemathesis, "run", f"{address}/openapi.json",
                "--header", f"Authorization: Bearer {KEY}",
                "--checks", CHECKS,
                "--max-examples", os.environ.get("SCHEMATHESIS_EXAMPLES", "25"),
                "--phases", "examples,coverage,fuzzing",
                "--max-time", os.environ.get("SCHEMATHESIS_SECONDS", "120"),
                "--no-color",
                "--request-timeout", "10",
                "--seed", "1",
                "--continue-on-failure",
            ]
            for path in LEFT_OUT:
                command += ["--exclude-path", path]
            hooks = os.path.dirname(os.path.abspath(__file__))
            environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": hooks}
            outcome = subprocess.run(command, timeout=600, cwd=folder, env=environment)
            if gateway.poll() is not None:
                print(f"the gateway ended with {gateway.returncode}", file=sys.stderr)
                return 1
            return outcome.returncode
        finally:
            gateway.terminate()
            gateway.wait()


if __name__ == "__main__":
    sys.exit(main(os.path.abspath(sys.argv[1]), sys.argv[2]))
