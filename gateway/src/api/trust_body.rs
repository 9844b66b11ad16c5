//! What an endpoint's JSON says of signatures, secrets, TLS and static headers.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::api::endpoint_body::{name_of, one_of};
use crate::api::fields::Fields;
use crate::domain::{ClientTls, Scheme, Secret, Signature, header};
use crate::world::Transport;

const HEADERS_MAX: usize = 32;
const HEADER_BYTES_MAX: usize = 4096;

pub(super) fn read_headers(
    fields: &mut Fields,
    code: &mut &'static str,
) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for (name, value) in fields.strings("headers").unwrap_or_default() {
        let lower = name.to_ascii_lowercase();
        if !may_be_set(&lower) || !header::is_plain(&value) || value.len() > HEADER_BYTES_MAX {
            *code = "header_not_allowed";
            fields.refuse("headers", format!("`{name}` must not be set so"));
        }
        if headers.insert(lower, value).is_some() {
            fields.refuse("headers", format!("`{name}` comes twice: case makes no difference"));
        }
    }
    if headers.len() > HEADERS_MAX {
        fields.refuse("headers", format!("at most {HEADERS_MAX}"));
    }
    headers
}

/// Whether a tenant may name this header, in lower case.
fn may_be_set(name: &str) -> bool {
    // What the body is, its format and plugins say.
    name != "content-type" && !name.starts_with("webhook-") && !header::is_reserved(name)
}

/// Whether a signature may stand in this header: it would take the place of what the gateway itself
/// says there.
fn may_sign(name: &str) -> bool {
    let said = ["traceparent", "tracestate", "user-agent"].contains(&name);
    may_be_set(name) && !said && !name.starts_with("ce-")
}

pub(super) fn read_signature(fields: &mut Fields, code: &mut &'static str) -> Signature {
    let Some(value) = fields.take("signature") else { return Signature::default() };
    let mut inner = match Fields::of(value, "/signature") {
        Ok(inner) => inner.instead_of(fields.before("signature")),
        Err(errors) => {
            fields.refuse_all(errors);
            return Signature::default();
        }
    };
    let scheme = one_of(&mut inner, "scheme", &Scheme::NAMES);
    let mut signature = Signature { scheme, ..Signature::default() };
    // Options that a scheme does not have stay where they are and are refused as unknown.
    if scheme == Scheme::StandardEd25519 {
        signature.with_v1 = inner.boolean("with_v1").unwrap_or(true);
    }
    if scheme.is_standard() {
        let form = "a prefix of 1 to 32 of a-z0-9-, without a dash at the end";
        let stays = inner.stays("prefix");
        let fits = |it: &str| stays || is_prefix(it);
        let prefix = inner.parsed("prefix", form, |it| fits(it).then(|| it.to_owned()));
        signature.prefix = prefix.unwrap_or(signature.prefix);
    }
    if scheme.usual_header().is_some() {
        signature.header = read_name(&mut inner, "header", code);
    }
    if scheme == Scheme::Slack {
        signature.timestamp_header = read_name(&mut inner, "timestamp_header", code);
        let header = signature.header.as_deref().or(scheme.usual_header());
        let time = signature.timestamp_header.as_deref();
        if header == time.or(Some(Signature::USUAL_TIMESTAMP_HEADER)) {
            inner.refuse("timestamp_header", "is the signature's own header already");
        }
    }
    if let Err(errors) = inner.finish() {
        fields.refuse_all(errors);
    }
    signature
}

fn is_prefix(text: &str) -> bool {
    let plain = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    (1..=32).contains(&text.len())
        && text.bytes().all(plain)
        && !text.ends_with('-')
        // The three headers of this prefix are ours to set; nothing else is.
        && (text == Signature::USUAL_PREFIX || may_sign(&format!("{text}-id")))
}

fn read_name(fields: &mut Fields, field: &str, code: &mut &'static str) -> Option<String> {
    let stays = fields.stays(field);
    let name = fields.string(field)?.to_ascii_lowercase();
    if !may_sign(&name) && !stays {
        *code = "header_not_allowed";
        fields.refuse(field, format!("`{name}` must not be set so"));
    }
    Some(name)
}

pub(super) fn render_signature(it: &Signature) -> Value {
    let mut value = json!({ "scheme": name_of(&Scheme::NAMES, it.scheme) });
    if it.scheme == Scheme::StandardEd25519 {
        value["with_v1"] = it.with_v1.into();
    }
    if it.scheme.is_standard() && it.prefix != Signature::USUAL_PREFIX {
        value["prefix"] = it.prefix.as_str().into();
    }
    if let Some(header) = &it.header {
        value["header"] = header.as_str().into();
    }
    if let Some(header) = &it.timestamp_header {
        value["timestamp_header"] = header.as_str().into();
    }
    value
}

/// A secret that the tenant brings along.
pub(super) fn read_secret(
    fields: &mut Fields,
    field: &str,
    scheme: Scheme,
    code: &mut &'static str,
) -> Option<Secret> {
    let text = Zeroizing::new(fields.string(field)?);
    match Secret::parse(&text, scheme) {
        Ok(secret) => Some(secret),
        Err(detail) => {
            *code = "invalid_secret";
            fields.refuse(field, detail);
            None
        }
    }
}

pub(super) fn read_tls(fields: &mut Fields, transport: &dyn Transport) -> Option<ClientTls> {
    let mut inner = match Fields::of(fields.take("tls")?, "/tls") {
        Ok(inner) => inner,
        Err(errors) => {
            fields.refuse_all(errors);
            return None;
        }
    };
    let tls = ClientTls {
        ca: inner.string("ca"),
        certificate: inner.string("certificate"),
        key: inner.string("key").map(Zeroizing::new),
    };
    if let Err((field, detail)) = transport.check_tls(&tls) {
        inner.refuse(field, detail);
    }
    if let Err(errors) = inner.finish() {
        fields.refuse_all(errors);
    }
    (!tls.is_empty()).then_some(tls)
}

/// Everything but the private key, which is never shown again.
pub(super) fn render_tls(it: &ClientTls) -> Value {
    json!({ "ca": it.ca, "certificate": it.certificate })
}
