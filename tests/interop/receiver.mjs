// Receives deliveries and verifies each with published libraries: as receiver.py does.

import { createPublicKey, verify as verifyKey } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { verify as verifyGithub } from "@octokit/webhooks-methods";
import "@shopify/shopify-api/adapters/node";
import { ApiVersion, shopifyApi } from "@shopify/shopify-api";
import { Webhook as StandardWebhook } from "standardwebhooks";
import Stripe from "stripe";
import { Webhook as SvixWebhook } from "svix";

const byStandard = ({ key }, body, { headers }) => new StandardWebhook(key).verify(body, headers);
const bySvix = ({ key }, body, { headers }) => new SvixWebhook(key).verify(body, headers);

// OpenSSL's, since no library that is published verifies `v1a`.
const byOpenssl = ({ public_key }, body, { headers }) => {
  const raw = Buffer.from(public_key.replace(/^whpk_/, ""), "base64");
  const head = Buffer.from("302a300506032b6570032100", "hex");
  const key = createPublicKey({ key: Buffer.concat([head, raw]), format: "der", type: "spki" });
  const content = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`;
  const signatures = headers["webhook-signature"].split(" ").filter((it) => it.startsWith("v1a,"));
  const good = signatures.some((it) =>
    verifyKey(null, Buffer.from(content), key, Buffer.from(it.slice(4), "base64")),
  );
  if (!good) throw new Error("no v1a signature is the key's");
};

const byStripe = ({ key }, body, { headers }) =>
  new Stripe("sk_test_interop").webhooks.constructEvent(body, headers["stripe-signature"], key);

const byGithub = async ({ key }, body, { headers }) => {
  if (!(await verifyGithub(key, body, headers["x-hub-signature-256"])))
    throw new Error("verify says no");
};

const byShopify = async ({ key }, rawBody, rawRequest, rawResponse) => {
  const shopify = shopifyApi({
    apiKey: "interop",
    apiSecretKey: key,
    apiVersion: Object.values(ApiVersion)[0],
    hostName: "interop.example",
    isEmbeddedApp: false,
    logger: { log: () => {} },
  });
  const said = await shopify.webhooks.validate({ rawBody, rawRequest, rawResponse });
  if (!said.valid) throw new Error(JSON.stringify(said));
};

const libraries = {
  standard: { "js standardwebhooks": byStandard, "js svix": bySvix },
  "standard-ed25519": {
    "js standardwebhooks": byStandard,
    "js svix": bySvix,
    "js openssl ed25519": byOpenssl,
  },
  "standard-svix": { "js svix": bySvix },
  stripe: { "js stripe": byStripe },
  github: { "js octokit": byGithub },
  shopify: { "js shopify-api": byShopify },
};
const trusted = new Map();
const refused = new Set();

const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", async () => {
    const body = Buffer.concat(chunks).toString("utf8");
    const id = request.headers["webhook-id"];
    const known = trusted.get(request.url);
    for (const [library, verify] of Object.entries(libraries[known.scheme])) {
      const verdict = { id, path: request.url, library, ok: true, error: null };
      try {
        await verify(known, body, request, response);
      } catch (error) {
        Object.assign(verdict, { ok: false, error: String(error) });
      }
      console.log(JSON.stringify(verdict));
    }
    const retry = body.includes('"refuse_first"') && !refused.has(id);
    refused.add(id);
    response.writeHead(retry ? 503 : 200, { "content-length": "0" }).end();
  });
});

server.listen(0, "127.0.0.1", () => console.log(server.address().port));
createInterface({ input: process.stdin }).on("line", (line) => {
  const known = JSON.parse(line);
  trusted.set(known.path, known);
  console.log(JSON.stringify({ trusted: known.path }));
});
