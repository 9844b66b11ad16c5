"""Signs `timestamp.body` with HMAC-SHA256, in the header `x-signature`."""

from wit_world.imports import keys, types


class Setup:
    def configure(self, config: list[tuple[str, str]]) -> None:
        pass


class Sign:
    def sign(self, request: types.Request) -> list[tuple[str, str]]:
        message = f"{request.timestamp}.".encode() + request.body
        mac = keys.hmac(keys.Algorithm.SHA256, message)
        return [("x-signature", f"t={request.timestamp},v1={mac.hex()}")]
