//! How workflows are seen: metrics, traces and their lifecycle.

mod clock;
mod family;
mod label;
mod observed;
mod registry;
mod scrape;
mod sink;
mod text;
mod window;

pub use clock::{Clock, Tick};
pub use family::{Family, OWN_SECONDS, Shape, WORK_SECONDS};
pub use label::{Ended, Label, NoEvents, Outcome};
pub use observed::{Deferred, End, Observed, Run, Seen, Stage};
pub use registry::{Amount, Counter, Gauge, Histogram, Rate, Registry};
pub use scrape::{Sample, Scrape};
pub use sink::Sink;
pub use text::{OPENMETRICS, TEXT, to_text, wants_openmetrics};
