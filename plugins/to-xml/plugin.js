// Sends XML to receivers that read nothing else, with a builder from npm.
//
// Config: `root` (the outermost element, default `event`).

import { XMLBuilder } from "fast-xml-parser";
import { log } from "hookgate:plugin/host@1.0.0";

const builder = new XMLBuilder({ ignoreAttributes: true, suppressEmptyNode: true });
let root = "event";

export const setup = {
  configure(config) {
    root = new Map(config).get("root") ?? root;
    // What is thrown is the refusal.
    if (!/^[A-Za-z_][\w.-]*$/.test(root)) throw `\`root\`: ${root} is no element's name`;
  },
};

export const transform = {
  transform(event) {
    const data = JSON.parse(new TextDecoder().decode(event.payload));
    const xml = `<?xml version="1.0" encoding="UTF-8"?>${builder.build({ [root]: data })}`;
    log("debug", `${event.id}: ${xml.length} characters`);
    const payload = new TextEncoder().encode(xml);
    const contentType = "application/xml";
    return { tag: "replace", val: { payload, contentType, headers: [], pathSuffix: undefined } };
  },
};
