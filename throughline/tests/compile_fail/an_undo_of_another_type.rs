use throughline::workflow;

async fn reserve(order: u64) -> throughline::Result<String> {
    Ok(order.to_string())
}

async fn release(order: u64) -> throughline::Result<()> {
    drop(order);
    Ok(())
}

fn main() {
    let _ = workflow("reserve", reserve).undo(workflow("release", release));
}
