//! The OpenAPI document, made from the table of routes and the schemas beside it.

use std::sync::OnceLock;

use http::Method;
use serde_json::{Map, Value, json};

use crate::api::caller::Need;
use crate::api::problem::Problem;
use crate::api::route::{Answer, AnswerBody, Doc, Route};
use crate::api::router::table;

/// Schemas by name, a file for each group of nouns.
const SCHEMAS: [&str; 5] = [
    include_str!("schemas/common.json"),
    include_str!("schemas/tenants.json"),
    include_str!("schemas/endpoints.json"),
    include_str!("schemas/events.json"),
    include_str!("schemas/plugins.json"),
];
const PARAMETERS: &str = include_str!("schemas/parameters.json");
const PROBLEM: &str = "application/problem+json";

/// The document as it is served, printed and committed.
pub fn document() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut text = serde_json::to_string_pretty(&build(&table())).expect("it is plain JSON");
        text.push('\n');
        text
    })
}

fn build(table: &[Route]) -> Value {
    let schemas = schemas();
    let parameters = parse(PARAMETERS);
    let mut paths = Map::new();
    let mut tags = Vec::new();
    for route in table {
        let tag = tag(route.path);
        if !tags.contains(&tag) {
            tags.push(tag);
        }
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        let method = route.method.as_str().to_ascii_lowercase();
        item[method] = operation(route, tag, &schemas);
    }
    let tags: Vec<_> = tags.into_iter().map(|it| json!({ "name": it })).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Hookgate",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "A webhook gateway: accepted means delivered, or kept where you can see why not.",
            "description": include_str!("schemas/description.md"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": parameters,
            "headers": headers(),
            "securitySchemes": { "key": {
                "type": "http",
                "scheme": "bearer",
                "description": "The operator's key, a tenant's key or a portal session's token.",
            } },
        },
    })
}

fn parse(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).expect("the schemas are JSON, which a test has seen")
}

fn schemas() -> Map<String, Value> {
    SCHEMAS.iter().flat_map(|it| parse(it)).collect()
}

fn headers() -> Value {
    let text =
        |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    json!({
        "ETag": text("The version of what was answered; send it back as `If-Match`."),
        "X-Request-Id": text("The request's name: the caller's own, or a new one."),
        "Retry-After": text("Seconds to wait before trying again."),
        "RateLimit": text("What is left of the limit, and when it is whole again."),
        "RateLimit-Policy": text("The limit that applies."),
        "Allow": text("The methods that the route takes."),
        "WWW-Authenticate": text("`Bearer`: send a key."),
        "Location": text("Where to read what was made."),
    })
}

/// The group that an operation stands in: the noun in its path.
fn tag(path: &'static str) -> &'static str {
    let nouns = ["/v1/tenants/{tenant}/", "/v1/"].iter().find_map(|it| path.strip_prefix(it));
    match nouns {
        Some(rest) if !rest.contains("{tenant}") => rest.split('/').next().unwrap_or(rest),
        Some(_) => "tenants",
        None if path.starts_with("/api/") => "short API",
        None => "operations",
    }
}

fn operation(route: &Route, tag: &str, schemas: &Map<String, Value>) -> Value {
    let doc = &route.doc;
    let mut operation = json!({
        "operationId": doc.name,
        "summary": doc.summary,
        "tags": [tag],
        "parameters": parameters(route),
        "responses": responses(route, schemas),
        "security": match route.need {
            Need::Nothing => json!([]),
            need => json!([{ "key": [need.name()] }]),
        },
    });
    if !doc.bodies.is_empty() {
        let content: Map<_, _> = doc
            .bodies
            .iter()
            .map(|(media_type, schema)| {
                ((*media_type).to_owned(), media(&reference(schema), schemas.get(*schema)))
            })
            .collect();
        operation["requestBody"] = json!({ "required": !doc.body_optional, "content": content });
    }
    operation
}

/// The path's own parameters, then those of query and headers.
fn parameters(route: &Route) -> Vec<Value> {
    let named = |name: &str| json!({ "$ref": format!("#/components/parameters/{name}") });
    let in_path = route.path.split(['{', '}']).skip(1).step_by(2);
    let in_path = in_path.map(|name| named(&format!("path.{name}")));
    let query = route.doc.query.iter().map(|name| named(&format!("query.{name}")));
    let headers = route.doc.headers.iter().map(|name| named(&format!("header.{name}")));
    in_path.chain(query).chain(headers).collect()
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

/// A media type's entry, with the first example of its schema.
fn media(schema: &Value, of: Option<&Value>) -> Value {
    let example = of.and_then(|it| it.get("examples")?.get(0)).cloned();
    let mut media = json!({ "schema": schema });
    if let Some(example) = example {
        media["example"] = example;
    }
    media
}

fn responses(route: &Route, schemas: &Map<String, Value>) -> Value {
    let mut responses = Map::new();
    for answer in &route.doc.answers {
        add_answer(&mut responses, answer, schemas);
    }
    for (status, code) in refusals(route) {
        let entry = responses.entry(status.to_string()).or_insert_with(
            || json!({ "description": "", "headers": { "X-Request-Id": header("X-Request-Id") } }),
        );
        let said = entry["description"].as_str().unwrap_or_default();
        let before = if said.is_empty() { String::new() } else { format!("{said}, ") };
        entry["description"] = format!("{before}`{code}`").into();
        if entry["content"][PROBLEM].is_null() {
            entry["content"][PROBLEM] = json!({
                "schema": reference("Problem"),
                "example": Problem::example(status, code),
            });
        }
        let further: &[&str] = match status {
            401 => &["WWW-Authenticate"],
            429 => &["Retry-After", "RateLimit", "RateLimit-Policy"],
            503 => &["Retry-After"],
            _ => &[],
        };
        for name in further {
            entry["headers"][*name] = header(name);
        }
    }
    Value::Object(responses)
}

fn header(name: &str) -> Value {
    json!({ "$ref": format!("#/components/headers/{name}") })
}

fn add_answer(responses: &mut Map<String, Value>, answer: &Answer, schemas: &Map<String, Value>) {
    let said = http::StatusCode::from_u16(answer.status).ok().and_then(|it| it.canonical_reason());
    let entry = responses.entry(answer.status.to_string()).or_insert_with(|| {
        json!({
            "description": said.unwrap_or_default(),
            "headers": { "X-Request-Id": header("X-Request-Id") },
        })
    });
    if answer.tagged && !matches!(answer.body, AnswerBody::Empty) {
        entry["headers"]["ETag"] = header("ETag");
    }
    if answer.located {
        entry["headers"]["Location"] = header("Location");
    }
    let example = |schema: &str| schemas.get(schema).and_then(|it| it["examples"].get(0)).cloned();
    match answer.body {
        AnswerBody::Empty => {}
        AnswerBody::Json(schema) => {
            entry["content"]["application/json"] = media(&reference(schema), schemas.get(schema));
        }
        AnswerBody::Other(media_type, schema) => {
            entry["content"][media_type] = media(&reference(schema), schemas.get(schema));
        }
        AnswerBody::Page(schema) => {
            entry["content"]["application/json"] = json!({
                "schema": {
                    "type": "object",
                    "required": ["data", "next_cursor"],
                    "properties": {
                        "data": { "type": "array", "items": reference(schema) },
                        "next_cursor": reference("NextCursor"),
                    },
                },
                "example": { "data": [example(schema)], "next_cursor": null },
            });
        }
    }
}

/// What is refused by the head of a request alone, wherever it leads.
const OF_EVERY_HEAD: [(u16, &str); 3] =
    [(400, "ambiguous_request"), (414, "uri_too_long"), (431, "headers_too_large")];

/// What an operation may refuse with, what all have included.
fn refusals(route: &Route) -> Vec<(u16, &'static str)> {
    let Doc { query, bodies, refusals, .. } = &route.doc;
    let mut all = Vec::from(OF_EVERY_HEAD);
    if route.path.contains('{') || !query.is_empty() || !bodies.is_empty() {
        all.push((400, "invalid_path"));
    }
    if !query.is_empty() {
        all.extend([(400, "unknown_parameter"), (400, "invalid_parameter")]);
    }
    if query.contains(&"cursor") {
        all.push((400, "invalid_cursor"));
    }
    if route.need != Need::Nothing {
        all.extend([(401, "unauthenticated"), (403, "insufficient_scope"), (429, "rate_limited")]);
        all.push((503, "storage_unavailable"));
    }
    // The short API's tenant is the key's, or for the operator the default one, which may be gone.
    let own = matches!(route.need, Need::Own(_)) && !route.path.contains("{id}");
    if own {
        all.push((404, "tenant_not_found"));
    }
    // Where an operator makes a tenant, others learn nothing of one that is not theirs.
    if route.path.contains("{tenant}") {
        all.push((404, "tenant_not_found"));
    }
    if route.path.contains("/plugins/{name}") && route.method != Method::PUT {
        all.push((404, "plugin_not_found"));
    }
    if route.takes_nothing() {
        all.push((400, "unexpected_body"));
    }
    if !bodies.is_empty() {
        all.extend([(400, "invalid_json"), (408, "body_too_slow"), (413, "body_too_large")]);
        all.extend([(415, "unsupported_media_type"), (415, "unsupported_encoding")]);
        all.extend([(422, "invalid_field"), (422, "json_limits")]);
    }
    let takes = |schemas: &[&str]| bodies.iter().any(|(_, schema)| schemas.contains(schema));
    if takes(&["NewEndpoint", "EndpointPatch", "NewWebhook"]) {
        let codes = ["url_invalid", "url_scheme", "url_port", "url_blocked_address"];
        all.extend(codes.map(|it| (422, it)));
    }
    if takes(&["NewEndpoint", "EndpointPatch"]) {
        all.extend([(422, "header_not_allowed"), (422, "plugin_no_hook")]);
        all.push((422, "plugin_config_refused"));
    }
    if takes(&["NewEndpoint", "SecretRotation"]) {
        all.push((422, "invalid_secret"));
    }
    all.push((500, "internal"));
    all.extend(refusals);
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|it| seen.insert(*it));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed() -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json")
    }

    #[test]
    fn the_committed_document_is_the_one_the_table_makes() {
        if std::env::var_os("HOOKGATE_WRITE_OPENAPI").is_some() {
            std::fs::write(committed(), document()).unwrap();
        }
        let committed = std::fs::read_to_string(committed()).unwrap_or_default();
        let same = committed == document();
        assert!(same, "run this test with HOOKGATE_WRITE_OPENAPI=1 and commit what it writes");
    }

    #[test]
    fn every_reason_of_a_dead_letter_is_told() {
        let document: Value = serde_json::from_str(document()).unwrap();
        let names: Vec<_> = crate::domain::DeadReason::NAMES.iter().map(|(_, it)| *it).collect();
        let schemas = ["schemas/DeadLetter/properties/reason", "parameters/query.reason/schema"];
        for place in schemas.map(|it| format!("/components/{it}/enum")) {
            assert_eq!(document.pointer(&place), Some(&serde_json::json!(names)), "{place}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document: Value = serde_json::from_str(document()).unwrap();
        let mut waiting = vec![&document];
        while let Some(value) = waiting.pop() {
            match value {
                Value::Object(members) => {
                    if let Some(Value::String(to)) = members.get("$ref") {
                        let to = to.trim_start_matches('#');
                        assert!(document.pointer(to).is_some(), "{to} is not in the document");
                    }
                    waiting.extend(members.values());
                }
                Value::Array(items) => waiting.extend(items),
                _ => {}
            }
        }
    }

    #[test]
    fn every_operation_has_its_own_name_an_example_and_its_errors() {
        let document: Value = serde_json::from_str(document()).unwrap();
        let mut names = std::collections::BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let place = format!("{method} {path}");
                let name = operation["operationId"].as_str().unwrap();
                assert!(names.insert(name.to_owned()), "{place}: {name} comes twice");
                assert!(operation["summary"].as_str().unwrap().ends_with('.'), "{place}");
                let contents = [&operation["requestBody"]["content"]];
                let responses = operation["responses"].as_object().unwrap();
                assert!(responses.keys().any(|it| it.starts_with('2')), "{place} never succeeds");
                for status in ["400", "414", "431", "500"] {
                    assert!(responses.contains_key(status), "{place} does not tell of {status}");
                }
                let answers = responses.values().map(|it| &it["content"]);
                for content in contents.into_iter().chain(answers) {
                    for (media_type, it) in content.as_object().into_iter().flatten() {
                        let example = &it["example"];
                        assert!(!example.is_null(), "{place}: {media_type} has no example");
                        check_example(&document, &it["schema"], example, &place);
                    }
                }
            }
        }
    }

    fn check_example(document: &Value, schema: &Value, example: &Value, place: &str) {
        let mut whole = schema.clone();
        whole["components"] = document["components"].clone();
        let validator = jsonschema::validator_for(&whole).unwrap();
        let errors: Vec<_> = validator.iter_errors(example).map(|it| it.to_string()).collect();
        assert!(errors.is_empty(), "{place}: the example is refused: {errors:?}");
    }
}
