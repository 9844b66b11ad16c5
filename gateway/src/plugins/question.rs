//! What a plugin is asked and what it answers, hook by hook.

use bytes::Bytes;

use crate::domain::Event;

/// Whether it takes its configuration.
#[derive(Debug, Clone, Copy)]
pub struct Configure;

/// An event as a filter and a transform see it.
#[derive(Debug, Clone)]
pub struct EventIn {
    /// Its id.
    pub id: String,
    /// What happened.
    pub event_type: String,
    /// When, in milliseconds.
    pub timestamp_ms: u64,
    /// What the payload is.
    pub content_type: String,
    /// Facts beside the data.
    pub metadata: Vec<(String, String)>,
    /// Events with the same key keep their order.
    pub ordering_key: Option<String>,
    /// The data.
    pub payload: Bytes,
}

impl EventIn {
    /// `event`, with `data` as the plugin before left it.
    pub fn new(event: &Event, data: Bytes) -> Self {
        let fact = |(key, value): (&String, &String)| (key.clone(), value.clone());
        Self {
            id: event.id.to_string(),
            event_type: event.event_type.to_string(),
            timestamp_ms: event.timestamp.0,
            content_type: "application/json".to_owned(),
            metadata: event.metadata.iter().map(fact).collect(),
            ordering_key: event.ordering_key.clone(),
            payload: data,
        }
    }
}

/// What a filter and a transform say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The event goes on as it is.
    Deliver,
    /// Not for this endpoint, and why.
    Drop(String),
    /// This goes on instead.
    Replace(Outgoing),
    /// These go on instead, in this order; never empty.
    Split(Vec<Outgoing>),
}

/// What a transform made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The new data.
    pub payload: Bytes,
    /// What it is.
    pub content_type: String,
    /// Further headers, checked.
    pub headers: Vec<(String, String)>,
    /// Appended to the path.
    pub path_suffix: Option<String>,
}

/// An event before it is stored.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The producer's own id.
    pub id: Option<String>,
    /// What happened.
    pub event_type: String,
    /// When, in milliseconds.
    pub timestamp_ms: u64,
    /// Facts beside the data.
    pub metadata: Vec<(String, String)>,
    /// Events with the same key keep their order.
    pub ordering_key: Option<String>,
    /// The data.
    pub payload: Bytes,
}

/// What an ingest hook says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingested {
    /// It is stored as it came.
    Accept,
    /// This is stored instead.
    Replace(Replacement),
    /// It is not stored, and why.
    Reject(String),
}

/// What is stored instead of what came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// What happened; not checked yet.
    pub event_type: String,
    /// The data: a JSON text.
    pub payload: Bytes,
    /// Facts beside the data.
    pub metadata: Vec<(String, String)>,
    /// Events with the same key keep their order.
    pub ordering_key: Option<String>,
}

/// What an endpoint answered.
#[derive(Debug, Clone)]
pub struct ResponseIn {
    /// For which event; it seeds what is random.
    pub event_id: String,
    /// When the event happened, in milliseconds.
    pub timestamp_ms: u64,
    /// The status.
    pub status: u16,
    /// The head, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The first bytes of the body.
    pub body: Bytes,
}

/// What a response means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Classified {
    /// What its status says.
    Undecided,
    /// It was delivered.
    Success,
    /// To be tried again, and why.
    Failure(String),
    /// Not to be tried again, and why.
    Final(String),
}

/// A request before its signature.
#[derive(Clone)]
pub struct RequestIn {
    /// The value of `webhook-id`.
    pub id: String,
    /// Of this attempt, in seconds.
    pub timestamp: u64,
    /// Path and query.
    pub path: String,
    /// The head, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The bytes that will be sent.
    pub body: Bytes,
    /// The keys that sign, newest first. They stay with the host.
    pub keys: Vec<Vec<u8>>,
}

/// The headers that sign a request.
pub type Signed = Vec<(String, String)>;

/// Anything a plugin can be asked.
#[derive(Clone)]
pub enum Question {
    /// Whether it takes its configuration.
    Configure,
    /// What shall become of a delivery.
    Event(EventIn),
    /// What shall become of an event that arrives.
    Incoming(Incoming),
    /// What an answer means.
    Response(ResponseIn),
    /// How a request is signed.
    Request(RequestIn),
}

/// Anything a plugin can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It takes its configuration.
    Configured,
    /// What shall become of a delivery.
    Event(Verdict),
    /// What shall become of an event that arrives.
    Incoming(Ingested),
    /// What an answer means.
    Response(Classified),
    /// The signature's headers.
    Request(Signed),
}

impl Answer {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Event(Verdict::Deliver) | Self::Incoming(Ingested::Accept) => "pass",
            Self::Event(Verdict::Drop(_)) => "drop",
            Self::Event(Verdict::Replace(_)) | Self::Incoming(Ingested::Replace(_)) => "modified",
            Self::Event(Verdict::Split(_)) => "split",
            Self::Incoming(Ingested::Reject(_)) => "reject",
            Self::Response(_) => "classified",
            Self::Request(_) => "signed",
        }
    }
}

/// Ties each question to its answer.
pub trait Asked: Sized {
    /// What answers it.
    type Answer;

    /// As one of all questions.
    fn into_question(self) -> Question;

    /// Its answer among all answers.
    fn from_answer(answer: Answer) -> Option<Self::Answer>;
}

impl Asked for Configure {
    type Answer = ();

    fn into_question(self) -> Question {
        Question::Configure
    }

    fn from_answer(answer: Answer) -> Option<()> {
        matches!(answer, Answer::Configured).then_some(())
    }
}

impl Asked for EventIn {
    type Answer = Verdict;

    fn into_question(self) -> Question {
        Question::Event(self)
    }

    fn from_answer(answer: Answer) -> Option<Verdict> {
        if let Answer::Event(it) = answer { Some(it) } else { None }
    }
}

impl Asked for Incoming {
    type Answer = Ingested;

    fn into_question(self) -> Question {
        Question::Incoming(self)
    }

    fn from_answer(answer: Answer) -> Option<Ingested> {
        if let Answer::Incoming(it) = answer { Some(it) } else { None }
    }
}

impl Asked for ResponseIn {
    type Answer = Classified;

    fn into_question(self) -> Question {
        Question::Response(self)
    }

    fn from_answer(answer: Answer) -> Option<Classified> {
        if let Answer::Response(it) = answer { Some(it) } else { None }
    }
}

impl Asked for RequestIn {
    type Answer = Signed;

    fn into_question(self) -> Question {
        Question::Request(self)
    }

    fn from_answer(answer: Answer) -> Option<Signed> {
        if let Answer::Request(it) = answer { Some(it) } else { None }
    }
}
