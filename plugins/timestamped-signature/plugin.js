// Signs as many receivers of payment events expect it: `t=TIME,v1=HMAC`, where the HMAC-SHA256 is
// over `TIME.BODY`. While a secret is being rotated there is a `v1` for each.
//
// Config: `header` (default `x-signature`).

let header = "x-signature";

/** @type {import("../../plugin-sdk/templates/javascript/hookgate").Plugin} */
export default {
  configure(config) {
    header = config.header ?? header;
    if (!/^[a-z0-9-]+$/.test(header)) throw "`header` must be of a-z, 0-9 and -";
  },

  sign(request, keys) {
    const message = `${request.timestamp}.${request.body}`;
    const macs = keys.hmacEach("sha256", message).map((it) => `v1=${it}`);
    return { [header]: [`t=${request.timestamp}`, ...macs].join(",") };
  },
};
