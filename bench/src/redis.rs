//! Answers from a Redis cache beside the least that any client can do: a GET over one multiplexed connection of the same
//! driver, in the same run, with as many tasks.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use throughline::cache::redis::{Redis, RedisConfig};
use throughline::{CacheConfig, Clock, Context, JsonCaching, workflow};

use crate::cpu::median;
use crate::redis_faults;

/// How many answers a second a cache must give beside the bare client, and in all with the most tasks.
const SHARE: f64 = 0.85;
const LEAST: f64 = 50_000.0;
const TASKS: [usize; 3] = [1, 16, 64];
/// Keys that are asked for in turn.
const KEYS: usize = 1_000;
/// Long enough that no answer of a busy machine comes too late.
const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
pub(crate) struct RedisBench {
    /// Rounds; each measures the client and the cache once with every number of tasks
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Answers per measurement
    #[arg(long, default_value_t = 10_000)]
    answers: usize,
    /// The length of a value, in bytes
    #[arg(long, default_value_t = 1_024)]
    bytes: usize,
    /// Connections of the store; the client has one
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// The redis-server to start
    #[arg(long, default_value = "redis-server")]
    server: String,
    /// Measure instead what a request waits for while the server is sick, and how soon it is found again
    #[arg(long)]
    faults: bool,
}

/// A server that is killed with this.
struct Server(Child, String);

/// Measures and prints a table; fails when the cache is too slow.
pub(crate) fn run(args: &RedisBench) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime can start");
    if args.faults {
        return runtime.block_on(redis_faults::run());
    }
    match runtime.block_on(measure(args)) {
        Ok(rows) => report(args, &rows),
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}

/// The rates of the client and of the cache, and the median of their ratios, for a number of tasks.
type Row = (usize, f64, f64, f64);

async fn measure(args: &RedisBench) -> Result<Vec<Row>, String> {
    let server = Server::start(&args.server).await?;
    let config = RedisConfig::new(&server.1).and_then(|config| config.connections(args.connections));
    let config = config.and_then(|config| config.deadline(DEADLINE)).map_err(|error| error.to_string())?;
    let value = "v".repeat(args.bytes);
    let answer = value.clone();
    let cache =
        CacheConfig::new("bench", Duration::from_secs(3600)).and_then(|cache| cache.store_deadline(DEADLINE));
    let flow = workflow("value", move |_: usize| std::future::ready(Ok(answer.clone()))).cache(
        cache.map_err(|error| error.to_string())?,
        JsonCaching::keyed(|n: &usize, _, key| Some(key.part(&n.to_le_bytes()))),
        // As long as the client's values: what compression saves is another matter.
        Redis::new(config.compress_from(usize::MAX)).map_err(|error| error.to_string())?,
    );
    let flow = Arc::new(flow);
    let mut raw = connect(&server.1).await.map_err(|error| error.to_string())?;
    for n in 0..KEYS {
        let () = raw.set(name(n), &value).await.map_err(|error| error.to_string())?;
        flow.run(n, &Context::new()).await.map_err(|error| error.to_string())?;
    }
    let mut rows = Vec::new();
    for tasks in TASKS {
        let (mut clients, mut caches, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=args.rounds.max(1) {
            let (raw, flow) = (raw.clone(), Arc::clone(&flow));
            let client = rate(tasks, args.answers, move |n| {
                let mut raw = raw.clone();
                async move { raw.get::<_, Vec<u8>>(name(n)).await.is_ok_and(|value| !value.is_empty()) }
            });
            let client = client.await;
            let cached = rate(tasks, args.answers, move |n| {
                let flow = Arc::clone(&flow);
                async move { flow.run(n, &Context::new()).await.is_ok() }
            });
            let cached = cached.await;
            // The first round fills buffers.
            if round > 0 {
                clients.push(client);
                caches.push(cached);
                ratios.push(cached / client);
            }
        }
        let middle = |values: &mut Vec<f64>| median(values).unwrap_or_default();
        rows.push((tasks, middle(&mut clients), middle(&mut caches), middle(&mut ratios)));
    }
    let stats = flow.stage().stats();
    let missed = stats.misses + stats.store_errors + stats.bypassed;
    if missed > KEYS as u64 {
        return Err(format!("not every answer came from the store: {stats:?}"));
    }
    Ok(rows)
}

/// A key of the bare client, as long as one of the store.
fn name(n: usize) -> String {
    format!("raw:{n:0>76}")
}

async fn connect(url: &str) -> redis::RedisResult<MultiplexedConnection> {
    redis::Client::open(url)?.get_multiplexed_async_connection().await
}

/// Answers a second, from `tasks` that each ask one after the other.
async fn rate<F: Future<Output = bool> + Send + 'static>(
    tasks: usize,
    answers: usize,
    ask: impl Fn(usize) -> F + Clone + Send + 'static,
) -> f64 {
    let each = answers.div_ceil(tasks);
    let begun = Clock::default().now();
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let ask = ask.clone();
            tokio::spawn(async move {
                for n in 0..each {
                    assert!(ask((task * 31 + n) % KEYS).await, "every answer is a good one");
                }
            })
        })
        .collect();
    for task in running {
        task.await.expect("no task panics");
    }
    (each * tasks) as f64 / Clock::default().now().since(begun).as_secs_f64()
}

#[expect(clippy::print_stdout, reason = "the table is what this command prints")]
fn report(args: &RedisBench, rows: &[Row]) -> ExitCode {
    println!(
        "{} rounds of {} answers of {} bytes; rates are medians, the ratio is the median of the rounds' ratios\n\n\
         | tasks | bare GET, 1/s | cache hit, 1/s | ratio |\n|--:|--:|--:|--:|",
        args.rounds, args.answers, args.bytes
    );
    let mut fits = true;
    for (tasks, client, cached, ratio) in rows {
        println!("| {tasks} | {client:.0} | {cached:.0} | {ratio:.2} |");
        fits &= *ratio >= SHARE && (*tasks < 64 || *cached >= LEAST);
    }
    let verdict = if fits { "ok" } else { "MISSED" };
    println!("\nwanted: a ratio of {SHARE}, and {LEAST} a second with 64 tasks: {verdict}");
    if fits { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

// === impl Server ===

impl Server {
    async fn start(program: &str) -> Result<Self, String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        drop(listener);
        let mut command = Command::new(program);
        command.args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--port",
            &port.to_string(),
        ]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let missing = |error| format!("cannot start `{program}` (Debian package redis-server): {error}");
        let server = Self(child.map_err(missing)?, format!("redis://127.0.0.1:{port}"));
        for _ in 0..500 {
            if connect(&server.1).await.is_ok() {
                return Ok(server);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("`{program}` does not listen on port {port}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // There is nothing to do about a server that is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
