//! Any input to whatever reads bytes from outside or from disk: for the fuzzer (`.ci/fuzz`), and
//! for a moment in the tests. Not a part of the gateway.

use bytes::Bytes;

use crate::api::fuzz as api;
use crate::cli::authoring::Manifest;
use crate::dispatch::fuzz as dispatch;
use crate::domain::{EndpointId, EventId, EventType, Pattern, PluginName, Slug, TypeId};
use crate::plugins::{
    Answer, Compiler, Config, Limits, Outgoing, Replacement, Verdict, check_answer, inspect,
};
use crate::storage::fuzz as storage;
use crate::world::egress::{EgressPolicy, Host, Target as Place};

/// What reads bytes, and inputs to begin with.
pub struct Target {
    /// The name that `.ci/fuzz` knows.
    pub name: &'static str,
    /// Takes any bytes. A panic is a find.
    pub run: fn(&[u8]),
    /// Inputs that are as they should be.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:literal: $run:path, $seeds:path;)+) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target { name: $name, run: $run, seeds: $seeds }),+];
    };
}

targets! {
    "upload": upload, upload_seeds;
    "manifest": manifest, manifest_seeds;
    "output": output, output_seeds;
    "event": api::event, api::event_seeds;
    "cloud_event": api::cloud_event, api::cloud_event_seeds;
    "endpoint": api::endpoint, api::endpoint_seeds;
    "query": api::query, api::query_seeds;
    "row": storage::row, storage::row_seeds;
    "records": storage::records, storage::record_seeds;
    "marks": storage::marks, storage::marks_seeds;
    "files": storage::files, storage::files_seeds;
    "backup": storage::backup, storage::backup_seeds;
    "retry_after": dispatch::retry_after, dispatch::retry_after_seeds;
    "ids": ids, ids_seeds;
    "url": url, url_seeds;
}

/// An upload, as far as it is looked at before it is compiled.
fn upload(component: &[u8]) {
    let config = Config::new(std::path::PathBuf::new(), Compiler::InProcess);
    if let Err(refusal) = inspect(component, &config) {
        assert!(refusal.code.starts_with("plugin_") && !refusal.detail.is_empty());
    }
}

fn upload_seeds() -> Vec<Vec<u8>> {
    // An empty component; one with an empty module; a module.
    let (component, module) = (b"\0asm\x0d\0\x01\0", b"\0asm\x01\0\0\0");
    let nested = [&component[..], &[1, 8], module].concat();
    vec![component.to_vec(), nested, module.to_vec()]
}

/// A plugin's manifest.
fn manifest(bytes: &[u8]) {
    let _ = toml::from_str::<Manifest>(&String::from_utf8_lossy(bytes));
}

fn manifest_seeds() -> Vec<Vec<u8>> {
    let text = "name = \"a\"\nkind = \"filter\"\nlang = \"other\"\nbuild = [\"make\"]\n\
        component = \"a.wasm\"\ndescription = \"d\"\n";
    vec![text.into()]
}

/// What a plugin gives out, in pieces divided by the byte 0xff: what passes the checks can be sent
/// or stored.
fn output(bytes: &[u8]) {
    let mut pieces = bytes.split(|it| *it == 0xff);
    let mut text = || String::from_utf8_lossy(pieces.next().unwrap_or_default()).into_owned();
    let (content_type, path, payload) = (text(), text(), Bytes::from(text()));
    let headers: Vec<_> = (0..3).map(|_| (text(), text())).collect();
    let replacement = Replacement {
        event_type: content_type.clone(),
        payload: payload.clone(),
        metadata: headers.clone(),
        ordering_key: Some(path.clone()),
    };
    let incoming = Answer::Incoming(crate::plugins::Ingested::Replace(replacement));
    let _ = check_answer(incoming, &Limits::default());
    let path_suffix = Some(path);
    let out = Outgoing { payload, content_type, headers, path_suffix };
    let checked = check_answer(Answer::Event(Verdict::Split(vec![out])), &Limits::default());
    let Ok(Answer::Event(Verdict::Split(parts))) = checked else { return };
    for part in parts {
        http::HeaderValue::from_str(&part.content_type).expect("it can be sent");
        for (name, value) in &part.headers {
            http::HeaderName::from_bytes(name.as_bytes()).expect("it can be sent");
            http::HeaderValue::from_str(value).expect("it can be sent");
        }
    }
}

fn output_seeds() -> Vec<Vec<u8>> {
    let pieces = ["application/json", "/orders/1", "{\"a\":1}", "x-a", "1", "x-b", "2", "x-c", "3"];
    vec![pieces.map(str::as_bytes).join(&0xff)]
}

/// Names and numbers of things: what is read is written the same.
fn ids(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(id) = TypeId::parse("evt", &text) {
        assert_eq!(id.to_string(), text);
    }
    if let Some(id) = EventId::parse(&text) {
        let _ = (id.place(), assert_eq!(id.as_str(), text));
    }
    let _ = EndpointId::parse(&text);
    let _ = (Slug::parse(&text), PluginName::parse(&text));
    let of = EventType::parse("order.created").expect("a type");
    let _ = Pattern::parse(&text).map(|it| it.matches(&of));
}

fn ids_seeds() -> Vec<Vec<u8>> {
    let texts = ["evt_01kdx9hm00e008000000000001", "order-1", "order.**", "a.*.c", "acme_1"];
    texts.map(|it| it.as_bytes().to_vec()).into()
}

/// A URL: what passes leads where it seems to, and not inward.
fn url(bytes: &[u8]) {
    let (text, policy) = (String::from_utf8_lossy(bytes), EgressPolicy::default());
    let Ok(place) = Place::parse(&text, &policy) else { return };
    assert_eq!(Place::parse(place.url.as_str(), &policy), Ok(place.clone()));
    if let Host::Address(address) = place.host {
        assert!(policy.judge(address, place.port, place.tls).is_ok());
        assert!(!address.is_loopback() && !address.is_unspecified() && !address.is_multicast());
    }
}

fn url_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "https://shop.example.com:8443/h?x=1",
        "https://8.8.8.8/",
        "https://[2001:4860:4860::8888]/",
        "https://0x7f.1/",
        "https://[::ffff:127.0.0.1]/",
        "https://127。0。0。1/",
    ];
    texts.map(|it| it.as_bytes().to_vec()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Entropy, SeededEntropy};

    const ROUNDS: usize = 1500;
    const BYTES_MAX: usize = 4096;
    /// Inputs that were too much for somebody once, by target.
    const KEPT: [(&str, &[u8]); 2] = [
        ("query", b"1h31h1h1h3333333333333h313s"),
        (
            "records",
            b"\x01\x01\x09\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0.\0\0\0\
              \xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\
              \x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c",
        ),
    ];

    #[test]
    fn any_input_is_read_or_refused() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{}", target.name);
            seeds.iter().for_each(|it| (target.run)(it));
            let entropy = SeededEntropy::new(7);
            let mut pool = seeds.clone();
            for _ in 0..ROUNDS {
                let mut input = pick(&pool, &entropy).clone();
                for _ in 0..=entropy.draw() % 4 {
                    change(&mut input, pick(&seeds, &entropy), &entropy);
                }
                input.truncate(BYTES_MAX);
                (target.run)(&input);
                // What was changed is changed further.
                let place = (entropy.draw() % 64) as usize;
                match pool.get_mut(seeds.len() + place) {
                    Some(old) => *old = input,
                    None => pool.push(input),
                }
            }
        }
        for (name, input) in KEPT {
            let target = TARGETS.iter().find(|it| it.name == name).expect("a target");
            (target.run)(input);
        }
    }

    fn pick<'a>(from: &'a [Vec<u8>], entropy: &SeededEntropy) -> &'a Vec<u8> {
        &from[(entropy.draw() % from.len() as u64) as usize]
    }

    /// Spoils a byte or a number, cuts, doubles or puts in a piece of another.
    fn change(input: &mut Vec<u8>, other: &[u8], entropy: &SeededEntropy) {
        let at = (entropy.draw() % (input.len() as u64 + 1)) as usize;
        let drawn = entropy.draw().to_le_bytes();
        let piece = &other[other.len().min(at / 2)..other.len().min(at / 2 + 16)];
        match entropy.draw() % 7 {
            0 => input.truncate(at),
            1 => drop(input.splice(at..at, drawn)),
            2 => drop(input.splice(at..at, piece.iter().copied())),
            3 => {
                let twice = input[at..input.len().min(at + 32)].to_vec();
                input.splice(at..at, twice);
            }
            4 => {
                let end = input.len().min(at + 4);
                input[at..end].fill(if drawn[0] < 128 { 0xff } else { 0 });
            }
            _ if at < input.len() => input[at] ^= 1 << (drawn[0] % 8),
            _ => input.push(drawn[0]),
        }
    }
}
