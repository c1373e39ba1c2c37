//! How do I undo what was done when a later step fails?
//!
//! ```text
//! cargo run -p throughline --example saga
//! ```

use std::time::Duration;

use throughline::saga::saga_key;
use throughline::{
    ConfigError, Context, Error, Kind, Primitive, SagaConfig, Workflow, workflow, workflow_with,
};

#[derive(Clone, Copy, Debug)]
struct Order {
    id: u64,
    cents: u64,
}

/// Says what is done in the outside world.
fn act(what: impl std::fmt::Display) {
    #[expect(clippy::print_stdout, reason = "an example shows what happens")]
    {
        println!("  {what}");
    }
}

fn reserve() -> Workflow<impl Primitive<In = Order, Out = Order>> {
    workflow("reserve", |order: Order| async move {
        act(format!("reserve the goods of order {}", order.id));
        Ok(order)
    })
    .undo(workflow("release", |order: Order| async move {
        act(format!("release the goods of order {}", order.id));
        Ok(())
    }))
}

/// The key lets the bank recognise a charge that it has seen, and a refund that belongs to it.
fn charge() -> Workflow<impl Primitive<In = Order, Out = Order>> {
    workflow_with("charge", |order: Order, cx: Context| async move {
        let key = saga_key(&cx, "charge").unwrap_or_default();
        act(format!("charge {} cents, key ..{}", order.cents, &key[26..]));
        Ok(order)
    })
    .undo(workflow_with("refund", |order: Order, cx: Context| async move {
        let key = saga_key(&cx, "charge").unwrap_or_default();
        act(format!("refund {} cents, key ..{}", order.cents, &key[26..]));
        Ok(())
    }))
}

fn ship() -> Workflow<impl Primitive<In = Order, Out = String>> {
    workflow("ship", |order: Order| async move {
        if order.cents > 10_000 {
            return Err(Error::new(Kind::Upstream, "no courier takes a parcel of that value"));
        }
        act(format!("ship order {}", order.id));
        Ok(format!("order {} is under way", order.id))
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(run())
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let config = || -> Result<_, ConfigError> {
        SagaConfig::new("order").limit(Duration::from_secs(5))?.max_attempts(5)
    };
    let flow = (reserve() >> charge() >> ship()).saga(config()?);

    act("an order that can be shipped:");
    act(flow.run(Order { id: 1, cents: 999 }, &Context::new()).await?);

    act("an order that cannot:");
    let Err(error) = flow.run(Order { id: 2, cents: 99_900 }, &Context::new()).await else {
        return Err("the second order must fail".into());
    };
    act(format!("failed, and undone: {error}"));

    // A caller that goes away leaves the compensations to a task; a shutdown waits for it.
    flow.stage().settled().await;
    let stats = flow.stage().stats();
    assert_eq!((stats.successes, stats.compensated, stats.steps_undone), (1, 1, 2));
    Ok(())
}
