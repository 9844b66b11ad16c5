use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cli::bench::figures::{Quantiles, Spread, each, share};
use crate::cli::bench::load::Produced;
use crate::cli::bench::receiver::Received;
use crate::cli::bench::usage::Usage;
use crate::cli::output;

const PER: f64 = 10_000.0;

/// What one round was like.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) per_second: f64,
    accepted: u64,
    received: Option<u64>,
    ack: Quantiles,
    arrival: Option<Quantiles>,
    cpu: Option<f64>,
    resident_mib: Option<f64>,
    written: Option<f64>,
}

impl Round {
    /// From what was produced, which deliveries of each event came of it, and what was used
    /// before and after.
    pub(super) fn new(
        produced: &Produced,
        received: Option<(u64, Received)>,
        (before, after): (Option<Usage>, Option<Usage>),
    ) -> Self {
        let (count, seconds) = match &received {
            None => (produced.accepted, produced.seconds),
            Some((deliveries, it)) => {
                let micros = it.last_us.saturating_sub(produced.started_us);
                (produced.accepted * deliveries, micros as f64 / 1e6)
            }
        };
        let used = before.zip(after);
        let of = |total: f64| each(total, produced.accepted);
        Self {
            per_second: share(count as f64, seconds).unwrap_or_default(),
            accepted: produced.accepted,
            received: received.map(|(_, it)| it.count),
            ack: produced.ack,
            arrival: received.map(|(_, it)| it.arrival),
            cpu: used.and_then(|(from, to)| of((to.cpu_seconds - from.cpu_seconds) * PER)),
            resident_mib: after.map(|it| it.resident_mib()),
            written: used.and_then(|(from, to)| of(to.written_bytes - from.written_bytes)),
        }
    }
}

/// All rounds of one side.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary {
    /// Events, or deliveries where an event becomes several.
    pub(super) per_second: Option<Spread>,
    /// CPU-seconds of user and kernel for 10,000 events.
    pub(super) cpu_seconds_per_10000: Option<Spread>,
    resident_mib: Option<Spread>,
    written_bytes_per_event: Option<Spread>,
    /// Of all rounds together.
    pub(super) accepted: u64,
    /// Deliveries that came, of all rounds together.
    pub(super) received: Option<u64>,
    /// From request to acknowledgement.
    pub(super) ack: Quantiles,
    /// From the producer to the receiver.
    pub(super) arrival: Option<Quantiles>,
}

impl Summary {
    pub(super) fn of(rounds: &[Round]) -> Self {
        let spread = |of: fn(&Round) -> Option<f64>| Spread::of(rounds.iter().map(of));
        let arrivals: Option<Vec<_>> = rounds.iter().map(|it| it.arrival).collect();
        let acks: Vec<_> = rounds.iter().map(|it| it.ack).collect();
        Self {
            per_second: spread(|it| Some(it.per_second)),
            cpu_seconds_per_10000: spread(|it| it.cpu),
            resident_mib: spread(|it| it.resident_mib),
            written_bytes_per_event: spread(|it| it.written),
            accepted: rounds.iter().map(|it| it.accepted).sum(),
            received: rounds.iter().map(|it| it.received).sum(),
            ack: Quantiles::of_rounds(&acks),
            arrival: arrivals.map(|it| Quantiles::of_rounds(&it)),
        }
    }

    /// Its throughput as a part of the other's.
    pub(super) fn share_of(&self, other: &Self) -> Option<f64> {
        share(self.per_second?.median, other.per_second?.median)
    }

    /// Its CPU time in terms of the other's.
    pub(super) fn cpu_of(&self, other: &Self) -> Option<f64> {
        share(self.cpu_seconds_per_10000?.median, other.cpu_seconds_per_10000?.median)
    }

    /// The same, on average.
    pub(super) fn mean_cpu_of(&self, other: &Self) -> Option<f64> {
        share(self.cpu_seconds_per_10000?.mean, other.cpu_seconds_per_10000?.mean)
    }
}

/// What belongs together: sides that were measured in turns, and figures that follow.
#[derive(Debug, Default)]
pub(super) struct Section {
    name: String,
    sides: Vec<(&'static str, Summary)>,
    figures: Vec<(String, f64)>,
}

impl Section {
    pub(super) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// A gateway beside the bound, and its shares of it.
    pub(super) fn beside(name: impl Into<String>, gateway: &[Round], bound: &[Round]) -> Self {
        let (gateway, bound) = (Summary::of(gateway), Summary::of(bound));
        let (share, cpu) = (gateway.share_of(&bound), gateway.cpu_of(&bound));
        let mut section = Self::new(name);
        section.side("gateway", gateway);
        section.side("bound", bound);
        section.figure("share_of_bound", share);
        section.figure("cpu_in_terms_of_bound", cpu);
        section
    }

    pub(super) fn side(&mut self, name: &'static str, side: Summary) {
        self.sides.push((name, side));
    }

    /// Its unit is the end of its name. What could not be measured is left out.
    pub(super) fn figure(&mut self, name: impl Into<String>, value: impl Into<Option<f64>>) {
        self.figures.extend(value.into().map(|it| (name.into(), it)));
    }

    /// What one sync of the disk took.
    pub(super) fn syncs(&mut self, rounds: &[Quantiles]) {
        let it = Quantiles::of_rounds(rounds);
        self.figure("one_sync_p50_us", it.p50_us);
        self.figure("one_sync_p99_us", it.p99_us);
    }

    fn to_json(&self) -> Value {
        let mut json = Map::new();
        json.insert("name".to_owned(), self.name.as_str().into());
        for (name, side) in &self.sides {
            json.insert((*name).to_owned(), json!(side));
        }
        let figures = self.figures.iter().map(|(name, it)| (name.clone(), json!(it)));
        json.insert("figures".to_owned(), Value::Object(figures.collect()));
        Value::Object(json)
    }

    fn print(&self) {
        output::line(&self.name);
        for (name, side) in &self.sides {
            for line in describe(name, side) {
                output::line(&format!("  {line}"));
            }
        }
        for (name, value) in &self.figures {
            output::line(&format!("  {:<40} {}", name.replace('_', " "), number(*value)));
        }
    }
}

/// Prints everything: one object, or lines for people.
pub(super) fn print(as_json: bool, bench: &str, settings: &Value, sections: &[Section]) {
    if as_json {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        output::one(
            true,
            &json!({
                "bench": bench,
                "version": env!("CARGO_PKG_VERSION"),
                "cores": cores,
                "settings": settings,
                "results": sections.iter().map(Section::to_json).collect::<Vec<_>>(),
            }),
        );
        return;
    }
    for section in sections {
        section.print();
    }
}

fn describe(name: &str, side: &Summary) -> Vec<String> {
    let rate = side.per_second.map(|it| spread("/s", &it)).unwrap_or_default();
    let mut lines = vec![format!("{name:<12} {rate:<34} ack {}", quantiles(&side.ack))];
    if let Some(arrival) = &side.arrival {
        lines.push(format!("{:<47} arrival {}", "", quantiles(arrival)));
    }
    let used: Vec<_> = [
        (" CPU-s/10,000", &side.cpu_seconds_per_10000),
        (" MiB resident", &side.resident_mib),
        (" B written/event", &side.written_bytes_per_event),
    ]
    .into_iter()
    .filter_map(|(unit, it)| Some(spread(unit, it.as_ref()?)))
    .collect();
    if !used.is_empty() {
        lines.push(format!("{:<12} {}", "", used.join(" · ")));
    }
    lines
}

fn spread(unit: &str, it: &Spread) -> String {
    format!("{}{unit} ({}–{})", number(it.median), number(it.low), number(it.high))
}

fn quantiles(it: &Quantiles) -> String {
    let all = [("p50", it.p50_us), ("p90", it.p90_us), ("p99", it.p99_us), ("p99.9", it.p999_us)];
    let all = all.map(|(name, us)| format!("{name} {} ms", number(us / 1000.0)));
    all.join(" · ")
}

/// With three digits or so, and thousands apart.
fn number(it: f64) -> String {
    match it.abs() {
        size if size >= 100.0 => thousands(it.round() as i64),
        size if size >= 10.0 => format!("{it:.1}"),
        _ => format!("{it:.3}").trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

fn thousands(it: i64) -> String {
    let (digits, mut text) = (it.unsigned_abs().to_string(), String::new());
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if it < 0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn produced() -> Produced {
        let ack = Quantiles::default();
        Produced { accepted: 1000, started_us: 5_000_000, seconds: 2.0, ack }
    }

    fn used(cpu_seconds: f64, written_bytes: f64) -> Option<Usage> {
        Some(Usage { cpu_seconds, written_bytes, resident_kib: 2048.0 })
    }

    #[test]
    fn a_round_counts_for_each_event() {
        let round = Round::new(&produced(), None, (used(1.0, 500.0), used(1.5, 2500.0)));
        assert_eq!((round.per_second, round.cpu, round.written), (500.0, Some(5.0), Some(2.0)));
        assert_eq!(round.resident_mib, Some(2.0));
        let received = Received { last_us: 9_000_000, count: 3000, ..Received::default() };
        let round = Round::new(&produced(), Some((3, received)), (None, None));
        // Until the last of 3,000 deliveries came, four seconds later.
        assert_eq!((round.per_second, round.received), (750.0, Some(3000)));
        assert_eq!((round.cpu, round.written), (None, None));
    }

    #[test]
    fn sides_are_compared_by_their_medians() {
        let side = |rates: [f64; 3], cpu: f64| {
            let round = |per_second| Round {
                per_second,
                ..Round::new(&produced(), None, (used(0.0, 0.0), used(cpu, 0.0)))
            };
            rates.map(round)
        };
        let (ours, bound) = (side([1.0, 30.0, 2.0], 3.0), side([5.0, 4.0, 0.1], 2.0));
        let json = Section::beside("a", &ours, &bound).to_json();
        assert_eq!(json["figures"]["share_of_bound"], 0.5);
        assert_eq!(json["figures"]["cpu_in_terms_of_bound"], 1.5);
        assert_eq!(json["gateway"]["accepted"], 3000);
        assert_eq!(json["gateway"]["received"], Value::Null);
    }

    #[test]
    fn numbers_are_for_people() {
        let shown = [0.0, 0.7512, 2.0, 12.34, 99_999.6, -1234.0].map(number);
        assert_eq!(shown, ["0", "0.751", "2", "12.3", "100,000", "-1,234"]);
    }
}
