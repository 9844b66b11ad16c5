//! Puts each question to the hook it is for, and reads the answer.

use wasmtime::{Store, component::Instance};

use crate::plugins::call::Fault;
use crate::plugins::sandbox::Sandboxed;
use crate::plugins::state::State;
use crate::plugins::wit::types;
use crate::plugins::{
    Answer, Classified, EventIn, Incoming, Ingested, Outgoing, Question, Replacement, RequestIn,
    ResponseIn, Verdict,
};

/// A trap, or what the plugin says.
type Said<T> = wasmtime::Result<Result<T, Fault>>;

/// Gives an instance its configuration, if it takes one.
pub(super) fn configure(
    plugin: &Sandboxed,
    store: &mut Store<State>,
    instance: &Instance,
    config: &[(String, String)],
) -> Said<()> {
    let Some(indices) = &plugin.setup else { return Ok(Ok(())) };
    let setup = indices.load(&mut *store, instance)?;
    let taken = setup.hookgate_plugin_setup().call_configure(&mut *store, config)?;
    Ok(taken.map_err(Fault::failed))
}

/// Asks a configured instance. A question for a hook that it does not have answers itself.
pub(super) fn ask(
    plugin: &Sandboxed,
    store: &mut Store<State>,
    instance: &Instance,
    question: &Question,
) -> Said<Answer> {
    Ok(match question {
        Question::Configure => Ok(Answer::Configured),
        Question::Event(it) => deliver(plugin, store, instance, it)?.map(Answer::Event),
        Question::Incoming(it) => ingest(plugin, store, instance, it)?.map(Answer::Incoming),
        Question::Response(it) => classify(plugin, store, instance, it)?.map(Answer::Response),
        Question::Request(it) => sign(plugin, store, instance, it)?.map(Answer::Request),
    })
}

/// The filter, and what passes it, the transform.
fn deliver(
    plugin: &Sandboxed,
    store: &mut Store<State>,
    instance: &Instance,
    event: &EventIn,
) -> Said<Verdict> {
    let event = to_guest(event);
    if let Some(indices) = &plugin.filter {
        let filter = indices.load(&mut *store, instance)?;
        match filter.hookgate_plugin_filter().call_filter(&mut *store, &event)? {
            Ok(types::Filtered::Deliver) => {}
            Ok(types::Filtered::Drop(reason)) => return Ok(Ok(Verdict::Drop(reason))),
            Err(refusal) => return Ok(Err(Fault::failed(refusal))),
        }
    }
    let Some(indices) = &plugin.transform else { return Ok(Ok(Verdict::Deliver)) };
    let transform = indices.load(&mut *store, instance)?;
    let said = transform.hookgate_plugin_transform().call_transform(&mut *store, &event)?;
    Ok(match said {
        Ok(types::Transformed::Unchanged) => Ok(Verdict::Deliver),
        Ok(types::Transformed::Drop(reason)) => Ok(Verdict::Drop(reason)),
        Ok(types::Transformed::Replace(it)) => Ok(Verdict::Replace(it.into())),
        Ok(types::Transformed::Split(parts)) => {
            Ok(Verdict::Split(parts.into_iter().map(Outgoing::from).collect()))
        }
        Err(refusal) => Err(Fault::failed(refusal)),
    })
}

fn ingest(
    plugin: &Sandboxed,
    store: &mut Store<State>,
    instance: &Instance,
    event: &Incoming,
) -> Said<Ingested> {
    let Some(indices) = &plugin.ingest else { return Ok(Ok(Ingested::Accept)) };
    let incoming = types::Incoming {
        id: event.id.clone(),
        event_type: event.event_type.clone(),
        timestamp_ms: event.timestamp_ms,
        metadata: event.metadata.clone(),
        ordering_key: event.ordering_key.clone(),
        payload: event.payload.to_vec(),
    };
    let hook = indices.load(&mut *store, instance)?;
    let said = hook.hookgate_plugin_ingest().call_ingest(&mut *store, &incoming)?;
    Ok(match said {
        Ok(types::Ingested::Accept) => Ok(Ingested::Accept),
        Ok(types::Ingested::Reject(reason)) => Ok(Ingested::Reject(reason)),
        Ok(types::Ingested::Replace(it)) => Ok(Ingested::Replace(Replacement {
            event_type: it.event_type,
            payload: it.payload.into(),
            metadata: it.metadata,
            ordering_key: it.ordering_key,
        })),
        Err(refusal) => Err(Fault::failed(refusal)),
    })
}

fn classify(
    plugin: &Sandboxed,
    store: &mut Store<State>,
    instance: &Instance,
    response: &ResponseIn,
) -> Said<Classified> {
    let Some(indices) = &plugin.classify else { return Ok(Ok(Classified::Undecided)) };
    let response = types::Response {
        status: response.status,
        headers: response.headers.clone(),
        body: response.body.to_vec(),
    };
    let hook = indices.load(&mut *store, instance)?;
    let said = hook.hookgate_plugin_classify().call_classify(&mut *store, &response)?;
    Ok(match said {
        Ok(types::Classified::Undecided) => Ok(Classified::Undecided),
        Ok(types::Classified::Success) => Ok(Classified::Success),
        Ok(types::Classified::Failure(reason)) => Ok(Classified::Failure(reason)),
        Ok(types::Classified::Final(reason)) => Ok(Classified::Final(reason)),
        Err(refusal) => Err(Fault::failed(refusal)),
    })
}

fn sign(
    plugin: &Sandboxed,
    store: &mut Store<State>,
    instance: &Instance,
    request: &RequestIn,
) -> Said<Vec<(String, String)>> {
    let Some(indices) = &plugin.sign else {
        return Ok(Err(Fault::failed("it has no `sign` hook".to_owned())));
    };
    store.data_mut().hold(request.keys.clone());
    let request = types::Request {
        id: request.id.clone(),
        timestamp: request.timestamp,
        path: request.path.clone(),
        headers: request.headers.clone(),
        body: request.body.to_vec(),
    };
    let hook = indices.load(&mut *store, instance)?;
    let said = hook.hookgate_plugin_sign().call_sign(&mut *store, &request)?;
    store.data_mut().hold(Vec::new());
    Ok(said.map_err(Fault::failed))
}

fn to_guest(event: &EventIn) -> types::Event {
    types::Event {
        id: event.id.clone(),
        event_type: event.event_type.clone(),
        timestamp_ms: event.timestamp_ms,
        content_type: event.content_type.clone(),
        metadata: event.metadata.clone(),
        ordering_key: event.ordering_key.clone(),
        payload: event.payload.to_vec(),
    }
}

impl From<types::Outgoing> for Outgoing {
    fn from(it: types::Outgoing) -> Self {
        let (content_type, headers, path_suffix) = (it.content_type, it.headers, it.path_suffix);
        Self { payload: it.payload.into(), content_type, headers, path_suffix }
    }
}
