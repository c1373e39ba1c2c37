//! Answers from a Redis cache beside the least that any client can do: a GET over one multiplexed connection of the same
//! driver, in the same run, with as many tasks.
//!
//! What is judged is the rate by the clock. On a machine that does nothing else it also holds how long it takes to wake a processor
//! that sleeps; the processor time, of client and server together, says how many answers a machine can give.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use throughline::cache::redis::{Redis, RedisConfig};
use throughline::{CacheConfig, Caching, Clock, Context, JsonCaching, Key, KeyBuilder, workflow};

use crate::cpu::{median, of_process};
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

/// Who gives the answers: the driver's connection, which gives bytes; a cache of bytes; a cache of a text, kept as JSON.
const NAMES: [&str; 3] = ["bare GET", "cache hit", "cache hit, JSON"];

/// With a number of tasks, what each round has measured of each of [`NAMES`].
struct Row {
    tasks: usize,
    rounds: Vec<[Speed; 3]>,
}

struct Speed {
    /// Answers a second, by the clock.
    rate: f64,
    /// Microseconds of processor time for an answer, of this program and the server.
    processor: f64,
}

/// Bytes, kept as they are.
struct Plain;

impl Caching<usize, Bytes> for Plain {
    fn key(&self, n: &usize, _: &Context, key: KeyBuilder) -> Option<Key> {
        Some(key.part(&n.to_le_bytes()).build())
    }

    fn encode(&self, output: &Bytes) -> Option<Bytes> {
        Some(output.clone())
    }

    fn decode(&self, value: Bytes, _: &usize, _: &Context) -> throughline::Result<Option<Bytes>> {
        Ok(Some(value))
    }
}

async fn measure(args: &RedisBench) -> Result<Vec<Row>, String> {
    let server = Server::start(&args.server).await?;
    let config = RedisConfig::new(&server.1).and_then(|config| config.connections(args.connections));
    // As long as the client's values: what compression saves is another matter.
    let config = config.and_then(|config| config.compress_from(usize::MAX).deadline(DEADLINE));
    let store = config.and_then(Redis::new).map(Arc::new).map_err(|error| error.to_string())?;
    let cache = |name| {
        let cache = CacheConfig::new(name, Duration::from_secs(3600));
        cache.and_then(|cache| cache.store_deadline(DEADLINE)).map_err(|error| error.to_string())
    };
    let text = "v".repeat(args.bytes);
    let (bytes, value) = (Bytes::from(text.clone()), text.clone());
    let plain = workflow("bytes", move |_: usize| std::future::ready(Ok(bytes.clone())));
    let plain = Arc::new(plain.cache(cache("bytes")?, Plain, Arc::clone(&store)));
    let json = JsonCaching::keyed(|n: &usize, _, key| Some(key.part(&n.to_le_bytes())));
    let texts = workflow("text", move |_: usize| std::future::ready(Ok(text.clone())));
    let texts = Arc::new(texts.cache(cache("text")?, json, Arc::clone(&store)));
    let mut raw = connect(&server.1).await.map_err(|error| error.to_string())?;
    for n in 0..KEYS {
        let () = raw.set(name(n), &value).await.map_err(|error| error.to_string())?;
        plain.run(n, &Context::new()).await.map_err(|error| error.to_string())?;
        texts.run(n, &Context::new()).await.map_err(|error| error.to_string())?;
    }
    store.flush().await;
    let mut rows = Vec::new();
    for tasks in TASKS {
        let mut rounds = Vec::new();
        for round in 0..=args.rounds.max(1) {
            let (raw, plain, texts) = (raw.clone(), Arc::clone(&plain), Arc::clone(&texts));
            let client = move |n| {
                let mut raw = raw.clone();
                async move { raw.get::<_, Vec<u8>>(name(n)).await.is_ok_and(|value| !value.is_empty()) }
            };
            let cache = move |n| {
                let flow = Arc::clone(&plain);
                async move { flow.run(n, &Context::new()).await.is_ok() }
            };
            let json = move |n| {
                let flow = Arc::clone(&texts);
                async move { flow.run(n, &Context::new()).await.is_ok() }
            };
            let measured = [
                server.speed(tasks, args.answers, client).await?,
                server.speed(tasks, args.answers, cache).await?,
                server.speed(tasks, args.answers, json).await?,
            ];
            // The first round fills buffers.
            if round > 0 {
                rounds.push(measured);
            }
        }
        rows.push(Row { tasks, rounds });
    }
    for stats in [plain.stage().stats(), texts.stage().stats()] {
        if stats.misses + stats.store_errors + stats.bypassed > KEYS as u64 {
            return Err(format!("not every answer came from the store: {stats:?}"));
        }
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
        "{} rounds of {} answers of {} bytes; a rate by the clock is a median, and beside it the median of the rounds' ratios to\n\
         the bare client; processor time is that of client and server, and beside it how many answers it gives to one of the client\n\n\
         | tasks | by | 1/s | beside bare | processor, us | beside bare |\n|--:|---|--:|--:|--:|--:|",
        args.rounds, args.answers, args.bytes
    );
    let mut fits = true;
    for row in rows {
        for (who, name) in NAMES.into_iter().enumerate() {
            let (rate, ratio) =
                (row.middle(|round| round[who].rate), row.middle(|round| round[who].rate / round[0].rate));
            let processor = row.mean(who);
            println!(
                "| {} | {name} | {rate:.0} | {ratio:.2} | {processor:.2} | {:.2} |",
                row.tasks,
                row.mean(0) / processor
            );
            fits &= ratio >= SHARE && (row.tasks < 64 || rate >= LEAST);
        }
    }
    let verdict = if fits { "ok" } else { "MISSED" };
    println!("\nwanted: {SHARE} of the bare client's rate, and {LEAST} a second with 64 tasks: {verdict}");
    if fits { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

// === impl Row ===

impl Row {
    fn middle(&self, of: impl Fn(&[Speed; 3]) -> f64) -> f64 {
        median(&mut self.rounds.iter().map(of).collect::<Vec<_>>()).unwrap_or_default()
    }

    fn mean(&self, who: usize) -> f64 {
        self.rounds.iter().map(|round| round[who].processor).sum::<f64>() / self.rounds.len() as f64
    }
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

    /// How fast `tasks` tasks are that each ask for one answer after the other.
    async fn speed<F: Future<Output = bool> + Send + 'static>(
        &self,
        tasks: usize,
        answers: usize,
        ask: impl Fn(usize) -> F + Clone + Send + 'static,
    ) -> Result<Speed, String> {
        let used = || Ok::<_, String>(of_process(std::process::id())? + of_process(self.0.id())?);
        let before = used()?;
        let rate = rate(tasks, answers, ask).await;
        Ok(Speed { rate, processor: (used()? - before) * 1e6 / answers as f64 })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // There is nothing to do about a server that is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
