//! What the gateway tells of itself: the table of its metrics, spans, and how much is logged.

mod metric;
pub use metric::{Histogram, Kind, Label, Metric, Unit, Values};

mod buckets;
mod results;
mod series;
mod table;
pub use table::*;

mod owners;
pub use owners::{Owners, OwnersError};

mod recorder;
pub use recorder::{Rendering, install};

mod logging;
pub use logging::{log_level, set_log_level, start_logging};

mod spans;
pub use spans::{Cause, Span, ended, tracing_is_on};

mod otlp;
pub use otlp::Exporting;
