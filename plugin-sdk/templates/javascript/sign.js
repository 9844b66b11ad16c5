// Signs `timestamp.body` with HMAC-SHA256, in the header `x-signature`.

/** @type {import("./hookgate").Plugin} */
export default {
  sign(request, keys) {
    const mac = keys.hmac("sha256", `${request.timestamp}.${request.body}`);
    return { "x-signature": `t=${request.timestamp},v1=${mac}` };
  },
};
