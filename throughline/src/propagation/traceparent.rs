//! `traceparent`: `VERSION-TRACE-SPAN-FLAGS`, in lower-case hexadecimal digits (W3C Trace Context, 3.2).

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId};

/// Version, trace, span and flags with the dashes between them.
const LENGTH: usize = 55;
/// The version that is reserved to mean that there is none.
const NO_VERSION: u128 = 0xff;

/// What a header says, unless it is malformed. Of flags only the one that is known is kept.
pub(super) fn parse(header: &[u8]) -> Option<(TraceId, SpanId, TraceFlags)> {
    let (fields, more) = header.split_at_checked(LENGTH)?;
    if [2, 35, 52].into_iter().any(|at| fields[at] != b'-') {
        return None;
    }
    match number(&fields[..2])? {
        NO_VERSION => return None,
        0 if !more.is_empty() => return None,
        // A later version may say more, after a dash; its first four fields are the same.
        _ if !more.is_empty() && more[0] != b'-' => return None,
        _ => {}
    }
    let trace = TraceId::from(number(&fields[3..35])?);
    let span = SpanId::from(u64::try_from(number(&fields[36..52])?).ok()?);
    let flags = TraceFlags::new(u8::try_from(number(&fields[53..])?).ok()?) & TraceFlags::SAMPLED;
    (trace != TraceId::INVALID && span != SpanId::INVALID).then_some((trace, span, flags))
}

/// The header of version 00 for `span`.
pub(super) fn write(span: &SpanContext) -> String {
    let flags = span.trace_flags() & TraceFlags::SAMPLED;
    format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), flags.to_u8())
}

fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceState;
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn flags(header: &str) -> Option<u8> {
        let (trace, span, flags) = parse(header.as_bytes())?;
        assert_eq!((trace.to_string().as_str(), span.to_string().as_str()), (TRACE, SPAN), "{header}");
        Some(flags.to_u8())
    }

    #[test]
    fn reads_ids_and_the_sampling_flag_and_no_other() {
        for (written, read) in [("00", 0), ("01", 1), ("02", 0), ("03", 1), ("fe", 0), ("ff", 1)] {
            assert_eq!(flags(&format!("00-{TRACE}-{SPAN}-{written}")), Some(read), "{written}");
        }
    }

    #[test]
    fn of_a_later_version_reads_the_first_four_fields() {
        for more in ["", "-", "-what-the-future-will-be-like", "-.", "-AB"] {
            assert_eq!(flags(&format!("cc-{TRACE}-{SPAN}-01{more}")), Some(1), "{more}");
            assert_eq!(flags(&format!("01-{TRACE}-{SPAN}-00{more}")), Some(0), "{more}");
        }
        for more in [".what", "0", " ", ","] {
            assert_eq!(flags(&format!("cc-{TRACE}-{SPAN}-01{more}")), None, "{more}");
        }
    }

    #[test]
    fn refuses_what_is_malformed() {
        let (no_trace, no_span) = ("0".repeat(32), "0".repeat(16));
        for header in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-011"),
            format!(" 00-{TRACE}-{SPAN}-01"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("FF-{TRACE}-{SPAN}-01"),
            format!("0A-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("00-{no_trace}-{SPAN}-01"),
            format!("00-{TRACE}-{no_span}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
            format!("00-{TRACE}-{SPAN}-0A"),
            format!("00-{TRACE}-{SPAN}-0x"),
            format!("00-{}-{SPAN}a-01", &TRACE[1..]),
            format!("00_{TRACE}_{SPAN}_01"),
            format!("00-{}g-{SPAN}-01", &TRACE[1..]),
        ] {
            assert_eq!(parse(header.as_bytes()), None, "{header}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace in 1_u128.., span in 1_u64.., flags: u8) {
            let flags = TraceFlags::new(flags);
            let said = SpanContext::new(trace.into(), span.into(), flags, false, TraceState::NONE);
            let read = parse(write(&said).as_bytes());
            prop_assert_eq!(read, Some((said.trace_id(), said.span_id(), flags & TraceFlags::SAMPLED)));
        }

        #[test]
        fn one_changed_byte_never_gives_what_cannot_be_written(at in 0..LENGTH, byte: u8) {
            let mut header = format!("00-{TRACE}-{SPAN}-01").into_bytes();
            header[at] = byte;
            if let Some((trace, span, flags)) = parse(&header) {
                let again = SpanContext::new(trace, span, flags, true, TraceState::NONE);
                prop_assert!(again.is_valid());
                let written = write(&again);
                prop_assert_eq!(&written.as_bytes()[2..53], &header[2..53]);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(header in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some((trace, span, _)) = parse(&header) {
                prop_assert!(trace != TraceId::INVALID && span != SpanId::INVALID);
            }
        }
    }
}
