//! QuickJS as a Hookgate plugin, with room for one script.
//!
//! `hookgate plugin build` instantiates this module, hands it a script, takes a snapshot of its
//! memory, and makes a component of that, which has the hooks that the script has. So the author
//! needs no toolchain, and a call starts where the script has already run.

mod answers;
mod chance;
mod loading;
mod script;
mod values;

#[allow(unsafe_code, clippy::all, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "plugin" });
}

use bindings::exports::hookgate::plugin::{classify, filter, ingest, setup, sign, transform};
use bindings::hookgate::plugin::types::{
    Classified, Event, Filtered, Incoming, Ingested, Request, Response, Transformed,
};

use crate::script::{Hook, Script};

struct Component;

bindings::export!(Component with_types_in bindings);

impl setup::Guest for Component {
    fn configure(config: Vec<(String, String)>) -> Result<(), String> {
        chance::at(0, b"configure");
        Script::ask(
            Hook::Configure,
            |ctx, args| args.push_arg(values::object(ctx, &config)?),
            |_, _| Ok(()),
        )
    }
}

impl filter::Guest for Component {
    fn filter(event: Event) -> Result<Filtered, String> {
        chance::at(event.timestamp_ms, event.id.as_bytes());
        Script::ask(
            Hook::Filter,
            |ctx, args| args.push_arg(values::event(ctx, &event)?),
            |ctx, it| answers::filtered(ctx, &it),
        )
    }
}

impl transform::Guest for Component {
    fn transform(event: Event) -> Result<Transformed, String> {
        chance::at(event.timestamp_ms, event.id.as_bytes());
        Script::ask(
            Hook::Transform,
            |ctx, args| args.push_arg(values::event(ctx, &event)?),
            |ctx, it| answers::transformed(ctx, &it, &event),
        )
    }
}

impl ingest::Guest for Component {
    fn ingest(event: Incoming) -> Result<Ingested, String> {
        let seed = event.id.as_deref().map_or(event.payload.as_slice(), str::as_bytes);
        chance::at(event.timestamp_ms, seed);
        Script::ask(
            Hook::Ingest,
            |ctx, args| args.push_arg(values::incoming(ctx, &event)?),
            |ctx, it| answers::ingested(ctx, &it, &event),
        )
    }
}

impl classify::Guest for Component {
    fn classify(response: Response) -> Result<Classified, String> {
        chance::at(0, &response.body);
        Script::ask(
            Hook::Classify,
            |ctx, args| args.push_arg(values::response(ctx, &response)?),
            |ctx, it| answers::classified(ctx, &it),
        )
    }
}

impl sign::Guest for Component {
    fn sign(request: Request) -> Result<Vec<(String, String)>, String> {
        chance::at(request.timestamp.saturating_mul(1000), request.id.as_bytes());
        Script::ask(
            Hook::Sign,
            |ctx, args| {
                args.push_arg(values::request(ctx, &request)?)?;
                args.push_arg(values::keys(ctx)?)
            },
            |ctx, it| answers::signed(ctx, &it),
        )
    }
}
