//! What a run waits for while the Redis server behind its cache is sick, and how soon the server is found again: every
//! fault between a real server and a store with the default deadline.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use throughline::cache::CacheStats;
use throughline::cache::redis::{Redis, RedisConfig};
use throughline::{CacheConfig, Clock, Context, JsonCaching, Store as _, workflow};

use self::proxy::{Mood, Proxy};
use self::server::Server;

#[allow(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../../throughline/tests/redis/proxy.rs"]
mod proxy;
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../../throughline/tests/redis/server.rs"]
mod server;

/// The default of a call.
const DEADLINE: Duration = Duration::from_millis(20);
/// Failures after which a store is left alone: so many runs may wait.
const FAILURES: usize = 5;
/// What a run may wait for once the store is left alone.
const AFTERWARDS: Duration = Duration::from_millis(1);
/// How soon a store must be found again.
const RECOVERY: Duration = Duration::from_secs(2);
/// Runs while all is well and while the server is sick.
const RUNS: usize = 1_000;

/// A cached workflow and its store.
struct Rig {
    ask: Box<dyn Fn(String) -> BoxFuture<'static, bool>>,
    stats: Box<dyn Fn() -> CacheStats>,
    store: Arc<Redis>,
}

/// What was seen of a fault.
struct Row {
    fault: &'static str,
    /// The 99th percentile while all was well.
    well: Duration,
    /// The slowest of the first runs, as many as may wait.
    first: Duration,
    /// The 99th percentile and the most of all others, and how many of them took longer than they may.
    others: (Duration, Duration, usize),
    failed: usize,
    recovered: Duration,
    counted: CacheStats,
}

/// Measures every fault and prints a table; fails when a run failed or the store was found too late.
#[expect(clippy::print_stdout, reason = "the table is what this command prints")]
pub(crate) async fn run() -> ExitCode {
    println!(
        "{RUNS} runs one after the other while the server is sick; the workflow itself takes no time; a call to the store may \
         take {DEADLINE:?}\n\n\
         | fault | p99 before | slowest of the first {FAILURES} | p99 of the others | slowest of the others | of them above \
         {AFTERWARDS:?} | failed | found again after | hit / miss / error / bypass |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|---|"
    );
    let mut good = true;
    for row in [
        refused().await,
        hung().await,
        proxied("slow, 200 ms", Mood::Slow).await,
        proxied("reset", Mood::Resets).await,
        proxied("wrong answers", Mood::Lies).await,
        proxied("no redis", Mood::Babbles).await,
        told("OOM", &["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]).await,
        told("READONLY", &["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]).await,
        replaced().await,
    ] {
        let (p99, most, slow) = row.others;
        let CacheStats { hits, misses, store_errors, bypassed, .. } = row.counted;
        println!(
            "| {} | {} | {} | {} | {} | {slow} | {} | {} | {hits} / {misses} / {store_errors} / {bypassed} |",
            row.fault,
            ms(row.well),
            ms(row.first),
            ms(p99),
            ms(most),
            row.failed,
            ms(row.recovered)
        );
        // Where only writes fail, reads go on as before.
        let added = p99.saturating_sub(row.well);
        good &= row.failed == 0 && row.first <= DEADLINE && added < AFTERWARDS && row.recovered <= RECOVERY;
    }
    let verdict = if good { "ok" } else { "MISSED" };
    println!(
        "\nwanted: no run failed, none of the first {FAILURES} took longer than {DEADLINE:?}, p99 of the others at most {AFTERWARDS:?} \
         above that before, found again within {RECOVERY:?}: {verdict}"
    );
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

async fn refused() -> Row {
    let mut server = Server::start(&[]).await;
    let rig = Rig::new(RedisConfig::new(&server.url()).expect("it is an address"));
    let well = rig.well().await;
    server.kill().await;
    let sick = rig.sick(true).await;
    server.restart().await;
    rig.row("refused, and restarted empty", well, sick).await
}

async fn hung() -> Row {
    let server = Server::start(&[]).await;
    let rig = Rig::new(RedisConfig::new(&server.url()).expect("it is an address"));
    let well = rig.well().await;
    server.freeze();
    let sick = rig.sick(true).await;
    server.thaw();
    rig.row("hung (SIGSTOP)", well, sick).await
}

async fn proxied(fault: &'static str, mood: Mood) -> Row {
    let server = Server::start(&[]).await;
    let proxy = Proxy::start(server.address).await;
    let rig = Rig::new(RedisConfig::new(&format!("redis://{}", proxy.address)).expect("it is an address"));
    let well = rig.well().await;
    proxy.turn(mood);
    let sick = rig.sick(true).await;
    proxy.turn(Mood::Passes);
    rig.row(fault, well, sick).await
}

/// A server that is made to refuse writes: reads go on, so no run is fast because the store is left alone.
async fn told(fault: &'static str, sick: &[&str], well: &[&str]) -> Row {
    let server = Server::start(&[]).await;
    let rig = Rig::new(RedisConfig::new(&server.url()).expect("it is an address"));
    let before = rig.well().await;
    tell(&server, sick).await;
    let counted = rig.sick(false).await;
    tell(&server, well).await;
    rig.row(fault, before, counted).await
}

/// A server that is killed and that sentinels replace.
async fn replaced() -> Row {
    let mut master = Server::start(&[]).await;
    let of = format!("127.0.0.1 {}", master.address.port());
    let _replica = Server::start(&["--replicaof", &of, "--repl-diskless-sync-delay", "0"]).await;
    let mut sentinels = Vec::new();
    for _ in 0..3 {
        sentinels.push(Server::start_sentinel(master.address).await);
    }
    // They find each other and the replica by what they announce every two seconds.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let urls: Vec<_> = sentinels.iter().map(Server::url).collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let rig = Rig::new(RedisConfig::sentinel("cache", &urls).expect("they are addresses"));
    let well = rig.well().await;
    master.kill().await;
    let sick = rig.sick(true).await;
    // The sentinels take their time; what counts is how soon their choice is found.
    let first = sentinels[0].url();
    let old = master.address.port();
    while master_of(&first).await.is_none_or(|port| port == old) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.row("killed, replaced by sentinels", well, sick).await
}

async fn master_of(sentinel: &str) -> Option<u16> {
    let mut connection = redis::Client::open(sentinel).ok()?.get_multiplexed_async_connection().await.ok()?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg("cache");
    let (_, port): (String, u16) = question.query_async(&mut connection).await.ok()?;
    Some(port)
}

async fn tell(server: &Server, words: &[&str]) {
    let client = redis::Client::open(server.url()).expect("it is an address");
    let mut connection = client.get_multiplexed_async_connection().await.expect("it is there");
    let mut command = redis::Cmd::new();
    command.arg(words);
    let () = command.query_async(&mut connection).await.expect("it does as it is told");
}

/// The 99th percentile.
fn p99(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() * 99 / 100).copied().unwrap_or_default()
}

// === impl Rig ===

impl Rig {
    fn new(config: RedisConfig) -> Self {
        let store = Arc::new(Redis::new(config).expect("its parts fit each other"));
        let cache = CacheConfig::new("bench", Duration::from_secs(3600)).expect("it is long enough");
        let flow = workflow("shout", |input: String| std::future::ready(Ok(input.to_uppercase()))).cache(
            cache.store_deadline(DEADLINE).expect("it is above zero"),
            JsonCaching::keyed(|input: &String, _, key| Some(key.text(input))),
            Arc::clone(&store),
        );
        let flow = Arc::new(flow);
        let counting = Arc::clone(&flow);
        let ask = move |input| -> BoxFuture<'static, bool> {
            let flow = Arc::clone(&flow);
            Box::pin(async move { flow.run(input, &Context::new()).await.is_ok() })
        };
        Self { ask: Box::new(ask), stats: Box::new(move || counting.stage().stats()), store }
    }

    async fn ask(&self, input: &str) -> (Duration, bool) {
        let begun = Clock::default().now();
        let good = (self.ask)(input.to_owned()).await;
        (Clock::default().now().since(begun), good)
    }

    /// The 99th percentile of answers from the store.
    async fn well(&self) -> Duration {
        self.until_it_hits("good").await;
        let mut times = Vec::new();
        for _ in 0..RUNS {
            times.push(self.ask("good").await.0);
        }
        p99(&mut times)
    }

    /// How long each run took, and how many failed, and what was counted. Where only writes fail, every run is a miss.
    async fn sick(&self, asks_for_the_same: bool) -> (Vec<Duration>, usize, CacheStats) {
        let before = (self.stats)();
        let (mut times, mut failed) = (Vec::new(), 0);
        for n in 0..RUNS {
            let input = if asks_for_the_same { "good".to_owned() } else { format!("sick {n}") };
            let (time, good) = self.ask(&input).await;
            times.push(time);
            failed += usize::from(!good);
        }
        let mut counted = (self.stats)();
        counted.hits -= before.hits;
        counted.misses -= before.misses;
        counted.store_errors -= before.store_errors;
        counted.bypassed -= before.bypassed;
        (times, failed, counted)
    }

    async fn until_it_hits(&self, input: &str) {
        loop {
            let before = (self.stats)().hits;
            self.ask(input).await;
            if (self.stats)().hits > before
                && self.store.health().is_some_and(|health| health.down().is_none())
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The fault is over.
    async fn row(
        &self,
        fault: &'static str,
        well: Duration,
        (times, failed, counted): (Vec<Duration>, usize, CacheStats),
    ) -> Row {
        let begun = Clock::default().now();
        self.until_it_hits("good").await;
        let recovered = Clock::default().now().since(begun);
        let (first, others) = times.split_at(FAILURES);
        let mut others = others.to_vec();
        let most = others.iter().max().copied().unwrap_or_default();
        let slow = others.iter().filter(|time| **time > AFTERWARDS).count();
        let first = first.iter().max().copied().unwrap_or_default();
        Row { fault, well, first, others: (p99(&mut others), most, slow), failed, recovered, counted }
    }
}
