// Turns an event into a message for a Slack incoming webhook.
//
// Config: `title` (default: the event's type), `fields` (comma separated, at most 10, default: all
// plain members of the data; a dot leads inward: `customer.name`), `link` (where the button leads;
// `{id}` is the event's id), `mention` (for example `<!here>`).

let title, fields, link, mention;

/** @type {import("../../plugin-sdk/templates/javascript/hookgate").Plugin} */
export default {
  configure(config) {
    ({ title, link, mention } = config);
    fields = config.fields?.split(",").map((it) => it.trim()).filter(Boolean);
    if (fields?.length > 10) throw "`fields`: Slack shows ten at most";
  },

  transform(event) {
    const shown = fields ?? Object.keys(event.data ?? {}).filter((it) => plain(event.data[it]));
    const heading = title ?? event.type;
    const text = [mention, `*${escape(heading)}*`].filter(Boolean).join(" ");
    const blocks = [{ type: "section", text: { type: "mrkdwn", text } }];
    const columns = shown.map((name) => [name, at(event.data, name)]);
    const known = columns.filter(([, value]) => value !== undefined).slice(0, 10);
    if (known.length > 0) blocks.push({ type: "section", fields: known.map(column) });
    if (link) blocks.push({ type: "actions", elements: [button(event)] });
    return { data: { text: `${heading} (${event.id})`, blocks } };
  },
};

function column([name, value]) {
  const shown = typeof value === "string" ? value : JSON.stringify(value);
  return { type: "mrkdwn", text: `*${escape(name)}*\n${escape(shown)}` };
}

function button(event) {
  const url = link.replaceAll("{id}", encodeURIComponent(event.id));
  return { type: "button", text: { type: "plain_text", text: "Show" }, url };
}

function at(data, path) {
  return path.split(".").reduce((it, name) => it?.[name], data);
}

function plain(value) {
  return value === null || typeof value !== "object";
}

/** What Slack would read as markup. */
function escape(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
