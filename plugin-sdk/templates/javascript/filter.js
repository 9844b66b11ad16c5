// Delivers only events whose data has `"urgent": true`, or all if `all` is configured.

let all = false;

/** @type {import("./hookgate").Plugin} */
export default {
  configure(config) {
    all = config.all === "true";
  },

  filter(event) {
    return all || event.data.urgent === true || { drop: "it is not urgent" };
  },
};
