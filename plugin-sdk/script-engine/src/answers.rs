//! What the hooks answer. An answer that is not understood is an error that says what is
//! expected: a wrong guess would send, or drop, what the author did not mean.

use rquickjs::{Coerced, Ctx, Exception, Object, Result, Value};

use crate::bindings::hookgate::plugin::types::{
    Classified, Event, Filtered, Incoming, Ingested, Outgoing, Replacement, Transformed,
};

pub(crate) fn filtered<'js>(ctx: &Ctx<'js>, it: &Value<'js>) -> Result<Filtered> {
    match it.as_bool() {
        Some(true) => return Ok(Filtered::Deliver),
        Some(false) => return Ok(Filtered::Drop("the filter said no".to_owned())),
        None => {}
    }
    match reason(it, "drop")? {
        Some(why) => Ok(Filtered::Drop(why)),
        None => Err(not_understood(ctx, "filter", "true, false or { drop: \"why\" }", it)),
    }
}

pub(crate) fn transformed<'js>(
    ctx: &Ctx<'js>,
    it: &Value<'js>,
    event: &Event,
) -> Result<Transformed> {
    if it.is_undefined() || it.is_null() {
        return Ok(Transformed::Unchanged);
    }
    if let Some(why) = reason(it, "drop")? {
        return Ok(Transformed::Drop(why));
    }
    if let Some(parts) = it.as_array() {
        let parts = parts.iter::<Value<'js>>().map(|it| outgoing(ctx, &it?, event));
        return Ok(Transformed::Split(parts.collect::<Result<_>>()?));
    }
    Ok(Transformed::Replace(outgoing(ctx, it, event)?))
}

pub(crate) fn ingested<'js>(
    ctx: &Ctx<'js>,
    it: &Value<'js>,
    event: &Incoming,
) -> Result<Ingested> {
    if it.is_undefined() || it.is_null() || it.as_bool() == Some(true) {
        return Ok(Ingested::Accept);
    }
    if let Some(why) = reason(it, "reject")? {
        return Ok(Ingested::Reject(why));
    }
    const EXPECTED: &str =
        "nothing, { reject: \"why\" } or { type, data, metadata, orderingKey }, each optional";
    let wrong = || not_understood(ctx, "ingest", EXPECTED, it);
    let answer = known(it, &["type", "data", "metadata", "orderingKey"]).ok_or_else(wrong)?;
    let event_type: Option<String> = answer.get("type")?;
    let data: Value<'js> = answer.get("data")?;
    let metadata: Value<'js> = answer.get("metadata")?;
    Ok(Ingested::Replace(Replacement {
        event_type: event_type.unwrap_or_else(|| event.event_type.clone()),
        payload: match data.is_undefined() {
            true => event.payload.clone(),
            false => json(ctx, data)?,
        },
        metadata: match metadata.is_undefined() {
            true => event.metadata.clone(),
            false => pairs(ctx, &metadata, "`metadata`")?,
        },
        ordering_key: match answer.contains_key("orderingKey")? {
            true => answer.get("orderingKey")?,
            false => event.ordering_key.clone(),
        },
    }))
}

pub(crate) fn classified<'js>(ctx: &Ctx<'js>, it: &Value<'js>) -> Result<Classified> {
    if it.is_undefined() || it.is_null() {
        return Ok(Classified::Undecided);
    }
    if it.as_string().is_some_and(|it| it.to_string().is_ok_and(|it| it == "success")) {
        return Ok(Classified::Success);
    }
    if let Some(why) = reason(it, "failure")? {
        return Ok(Classified::Failure(why));
    }
    if let Some(why) = reason(it, "final")? {
        return Ok(Classified::Final(why));
    }
    let expected = "nothing, \"success\", { failure: \"why\" } or { final: \"why\" }";
    Err(not_understood(ctx, "classify", expected, it))
}

pub(crate) fn signed<'js>(ctx: &Ctx<'js>, it: &Value<'js>) -> Result<Vec<(String, String)>> {
    pairs(ctx, it, "what sign returns")
}

/// What is to be sent. Without `data` and `body` that is the event's data as it came.
fn outgoing<'js>(ctx: &Ctx<'js>, it: &Value<'js>, event: &Event) -> Result<Outgoing> {
    const EXPECTED: &str = "nothing, { drop: \"why\" }, { data, headers, path } or an array of \
                            those; further members are body (text) and contentType";
    let wrong = || not_understood(ctx, "transform", EXPECTED, it);
    let answer = known(it, &["data", "body", "contentType", "headers", "path"]);
    let answer = answer.ok_or_else(wrong)?;
    let body: Option<String> = answer.get("body")?;
    let content_type: Option<String> = answer.get("contentType")?;
    let headers: Value<'js> = answer.get("headers")?;
    let (payload, default) = match body {
        Some(text) => (text.into_bytes(), "text/plain"),
        None if !answer.contains_key("data")? => {
            (event.payload.clone(), event.content_type.as_str())
        }
        None => (json(ctx, answer.get("data")?)?, "application/json"),
    };
    Ok(Outgoing {
        payload,
        content_type: content_type.unwrap_or_else(|| default.to_owned()),
        headers: match headers.is_undefined() {
            true => Vec::new(),
            false => pairs(ctx, &headers, "`headers`")?,
        },
        path_suffix: answer.get("path")?,
    })
}

fn json<'js>(ctx: &Ctx<'js>, value: Value<'js>) -> Result<Vec<u8>> {
    match ctx.json_stringify(value)? {
        Some(text) => Ok(text.to_string()?.into_bytes()),
        None => Err(Exception::throw_type(ctx, "`data` is nothing that JSON has a form for")),
    }
}

/// Names and texts; numbers and booleans count as their text.
fn pairs<'js>(ctx: &Ctx<'js>, it: &Value<'js>, what: &str) -> Result<Vec<(String, String)>> {
    let wrong = || Exception::throw_type(ctx, &format!("{what} must be an object of strings"));
    let members = it.as_object().ok_or_else(wrong)?.props::<String, Value<'js>>();
    let pair = |it: Result<(String, Value<'js>)>| {
        let (name, value) = it?;
        match value.is_object() || value.is_undefined() || value.is_null() {
            true => Err(wrong()),
            false => Ok((name, value.get::<Coerced<String>>()?.0)),
        }
    };
    members.map(pair).collect()
}

/// The text of a member that alone decides.
fn reason(it: &Value<'_>, member: &str) -> Result<Option<String>> {
    let Some(object) = it.as_object() else { return Ok(None) };
    let value: Value<'_> = object.get(member)?;
    Ok(value.as_string().map(|it| it.to_string()).transpose()?)
}

/// An object that has one or more of these members and no others.
fn known<'a, 'js>(it: &'a Value<'js>, members: &[&str]) -> Option<&'a Object<'js>> {
    let object = it.as_object().filter(|it| it.as_array().is_none())?;
    let mut names = object.keys::<String>().peekable();
    names.peek()?;
    names.all(|it| it.is_ok_and(|it| members.contains(&it.as_str()))).then_some(object)
}

fn not_understood<'js>(
    ctx: &Ctx<'js>,
    hook: &str,
    expected: &str,
    it: &Value<'js>,
) -> rquickjs::Error {
    let shown = ctx.json_stringify(it.clone()).ok().flatten().and_then(|it| it.to_string().ok());
    let mut shown = shown.unwrap_or_else(|| it.type_name().to_owned());
    if let Some((end, _)) = shown.char_indices().nth(60) {
        shown.truncate(end);
        shown.push('…');
    }
    Exception::throw_type(ctx, &format!("{hook} must return {expected}; it returned {shown}"))
}
