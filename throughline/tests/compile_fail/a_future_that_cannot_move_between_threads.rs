use std::rc::Rc;

use throughline::workflow;

fn main() {
    let _ = workflow("local", |n: u64| async move {
        let local = Rc::new(n);
        tokio::task::yield_now().await;
        Ok(*local)
    });
}
