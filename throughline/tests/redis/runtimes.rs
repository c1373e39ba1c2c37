//! A store that outlives the runtime that it was first used on.

use std::sync::Arc;
use std::time::Duration;

use throughline::cache::redis::Redis;
use throughline::{CacheConfig, Context, JsonCaching, workflow};

use crate::rig::at;
use crate::server::Server;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
#[ignore = "run by cargo xtask test: needs redis-server"]
fn a_store_goes_on_when_its_runtime_has_ended_and_there_is_another() {
    let outer = runtime();
    let server = outer.block_on(Server::start(&[]));
    let store = Arc::new(Redis::new(at(&server.url())).unwrap());
    let cache = CacheConfig::new("shout", Duration::from_secs(60)).unwrap();
    let flow = workflow("shout", |input: String| async move { Ok(input.to_uppercase()) }).cache(
        cache.store_deadline(Duration::from_secs(10)).unwrap(),
        JsonCaching::keyed(|input: &String, _, key| Some(key.text(input))),
        Arc::clone(&store),
    );
    for hits in 0..3 {
        let runtime = runtime();
        let answer = runtime.block_on(flow.run("hello".to_owned(), &Context::new()));
        assert_eq!(answer.unwrap(), "HELLO");
        let stats = flow.stage().stats();
        assert_eq!((stats.hits, stats.misses, stats.store_errors), (hits, 1, 0));
        // What is on its way to the server would end with the runtime.
        runtime.block_on(store.flush());
        drop(runtime);
    }
}
