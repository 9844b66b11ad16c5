// Takes only events whose data has an `id`; puts `prefix`, if configured, before their type.

let prefix = "";

/** @type {import("./hookgate").Plugin} */
export default {
  configure(config) {
    prefix = config.prefix ?? prefix;
  },

  ingest(event) {
    if (event.data.id == null) return { reject: "the data has no `id`" };
    if (prefix) return { type: prefix + event.type };
  },
};
