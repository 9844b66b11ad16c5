// Bundles plugin.js with what it imports, and makes a component of it.
import { mkdir, writeFile } from "node:fs/promises";

import { componentize } from "@bytecodealliance/componentize-js";
import { build } from "esbuild";

await mkdir("target", { recursive: true });
await build({
  entryPoints: ["plugin.js"],
  outfile: "target/bundle.js",
  bundle: true,
  format: "esm",
  external: ["hookgate:*"],
});
const { component } = await componentize({
  sourcePath: "target/bundle.js",
  witPath: "wit",
  worldName: "plugin",
  // None of them is there in the sandbox.
  disableFeatures: ["stdio", "random", "clocks", "http", "fetch-event"],
});
await writeFile("target/to-xml.wasm", component);
