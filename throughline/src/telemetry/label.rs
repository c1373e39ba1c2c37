//! Closed sets of label values.

/// A closed set of label values: an enum whose variants have names in snake_case.
pub trait Label: Copy + Send + Sync + 'static {
    /// Every value, in the order of [`Label::index`].
    const ALL: &'static [Self];
    /// The label's text.
    fn as_str(self) -> &'static str;
    /// The position in [`Label::ALL`].
    fn index(self) -> usize;
}

/// How a run of a stage can end. Every stage knows at least these three.
pub trait Outcome: Label {
    /// It returned a value.
    const SUCCESS: Self;
    /// It returned an error.
    const ERROR: Self;
    /// It was dropped before it returned.
    const CANCELLED: Self;
}

/// Declares a closed set of label values: one line a value.
///
/// ```
/// use throughline::telemetry::Label;
///
/// throughline::labels! {
///     /// Why the light is off.
///     pub enum Reason { Daylight = "daylight", BrokenBulb = "broken_bulb" }
/// }
/// assert_eq!(Reason::BrokenBulb.as_str(), "broken_bulb");
/// assert_eq!(Reason::ALL.len(), 2);
/// ```
#[macro_export]
macro_rules! labels {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the text of a value says what it means")]
        $vis enum $name { $($(#[$doc])* $variant),+ }

        impl $crate::telemetry::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];
            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

crate::labels! {
    /// The three ends that every run has.
    pub enum Ended { Success = "success", Error = "error", Cancelled = "cancelled" }
}

impl Outcome for Ended {
    const SUCCESS: Self = Self::Success;
    const ERROR: Self = Self::Error;
    const CANCELLED: Self = Self::Cancelled;
}

/// No events.
#[derive(Clone, Copy, Debug)]
pub enum NoEvents {}

impl Label for NoEvents {
    const ALL: &'static [Self] = &[];
    fn as_str(self) -> &'static str {
        match self {}
    }
    fn index(self) -> usize {
        match self {}
    }
}
