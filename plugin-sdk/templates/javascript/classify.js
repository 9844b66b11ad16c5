// A receiver that answers 200 with `{"ok": false}` has not taken the event.

/** @type {import("./hookgate").Plugin} */
export default {
  classify(response) {
    if (response.data?.ok === false) {
      return { failure: response.data.error ?? "it is not ok" };
    }
  },
};
