// CloudEvents' own library for JavaScript: makes the messages of each event it is told, and reads
// what was delivered. A line of JSON in, a line of JSON out.

import { createInterface } from "node:readline";
import { CloudEvent, HTTP } from "cloudevents";

const message = ({ headers, body }) => ({ headers, body: Buffer.from(body).toString("base64") });

const make = (attributes) => {
  const event = new CloudEvent(attributes);
  return { structured: message(HTTP.structured(event)), binary: message(HTTP.binary(event)) };
};

const read = ({ headers, body }) => {
  const event = HTTP.toEvent({ headers, body: Buffer.from(body, "base64").toString() });
  event.validate();
  const told = event.toJSON();
  // In binary mode it leaves the JSON of every other media type as text.
  if (typeof told.data === "string" && told.datacontenttype.endsWith("+json"))
    told.data = JSON.parse(told.data);
  return told;
};

for await (const line of createInterface({ input: process.stdin })) {
  const { task, ...it } = JSON.parse(line);
  console.log(JSON.stringify(task === "make" ? make(it.event) : read(it)));
}
