//! What those have in common that decide by success or failure, or run several attempts of which one counts.

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::primitive::Primitive;
use crate::stream::{Streaming, first};

/// Runs `inner` until it is known whether it works: until it has answered, or its stream has its first
/// item.
pub(crate) async fn answered<P: Primitive>(inner: &P, input: P::In, cx: &Context) -> Result<P::Out> {
    let mut output = inner.execute(input, cx).await?;
    if let Some(stream) = inner.stream(&mut output) {
        first(stream).await?;
    }
    Ok(output)
}

/// Whether an error may mean that a wait inside has ended with the deadline.
pub(crate) fn waited_in_vain(error: &Error) -> bool {
    matches!(error.kind(), Kind::Timeout | Kind::Rejected | Kind::RateLimited)
}

/// Takes over the state of the attempt that counts: what it has changed since it was a copy of `base`,
/// and, where it goes on as a stream, what it changes until that ends.
pub(crate) fn adopt(cx: &Context, attempt: &Context, base: &Context, stream: Option<&mut dyn Streaming>) {
    cx.state().adopt(attempt.state(), base.state());
    if let Some(stream) = stream {
        let (own, attempt, seen) = (cx.clone(), attempt.clone(), attempt.state().fork());
        stream.on_end(Box::new(move |_| own.state().adopt(attempt.state(), &seen)));
    }
}
