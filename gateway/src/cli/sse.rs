/// Takes apart a stream of server-sent events, wherever its chunks are cut
/// ([HTML, "Server-sent events"](https://html.spec.whatwg.org/multipage/server-sent-events.html)).
#[derive(Debug, Default)]
pub(super) struct Parser {
    buffer: Vec<u8>,
    event: SseEvent,
}

/// One event of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SseEvent {
    pub(super) name: String,
    pub(super) id: Option<String>,
    pub(super) data: String,
}

impl Parser {
    /// The events that this chunk completes.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Vec<SseEvent> {
        self.buffer.extend_from_slice(chunk);
        let mut events = Vec::new();
        while let Some(end) = memchr::memchr(b'\n', &self.buffer) {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            events.extend(self.line(line.trim_end_matches(['\n', '\r'])));
        }
        events
    }

    fn line(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return (!event.data.is_empty()).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "id" => self.event.id = Some(value.to_owned()),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_may_be_cut_anywhere() {
        let text = ": hi\nretry: 2000\n\nevent: a\nid: 7\ndata: {\"x\":\ndata: 1}\n\nevent: b\r\ndata: é\r\n\r\n";
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let events: Vec<_> =
                text.as_bytes().chunks(size).flat_map(|it| parser.push(it)).collect();
            let named: Vec<_> =
                events.iter().map(|it| (it.name.as_str(), it.data.as_str())).collect();
            assert_eq!(named, [("a", "{\"x\":\n1}"), ("b", "é")], "chunks of {size}");
            assert_eq!(events[0].id.as_deref(), Some("7"));
        }
    }
}
