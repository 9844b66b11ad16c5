// For receivers that answer 200 and say in the body that they have not taken the event:
// `{"ok": false, "error": "channel_not_found"}`.
//
// Config: `final` (comma separated: errors that trying again will not mend).

let final = [];

/** @type {import("../../plugin-sdk/templates/javascript/hookgate").Plugin} */
export default {
  configure(config) {
    final = config.final?.split(",").map((it) => it.trim()) ?? [];
  },

  classify(response) {
    // A body that is not JSON leaves it to the status.
    if (response.data?.ok !== false) return;
    const error = String(response.data.error ?? "it answers that it is not ok");
    return final.includes(error) ? { final: error } : { failure: error };
  },
};
