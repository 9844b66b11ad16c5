// Adds the member `source` to the data.

let source = "hookgate";

/** @type {import("./hookgate").Plugin} */
export default {
  configure(config) {
    source = config.source ?? source;
  },

  transform(event) {
    return { data: { ...event.data, source } };
  },
};
