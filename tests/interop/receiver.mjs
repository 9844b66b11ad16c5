// Receives deliveries and verifies each with published libraries: as receiver.py does.

import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Webhook as StandardWebhook } from "standardwebhooks";
import { Webhook as SvixWebhook } from "svix";

const libraries = { "js standardwebhooks": StandardWebhook, "js svix": SvixWebhook };
const refused = new Set();
let secret;

const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const body = Buffer.concat(chunks).toString("utf8");
    const id = request.headers["webhook-id"];
    for (const [library, Webhook] of Object.entries(libraries)) {
      const verdict = { id, library, ok: true, error: null };
      try {
        new Webhook(secret).verify(body, request.headers);
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
createInterface({ input: process.stdin }).once("line", (line) => (secret = line.trim()));
