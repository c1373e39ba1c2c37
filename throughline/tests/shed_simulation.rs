//! The adaptive limit against a model of a server: so many workers, a queue, and more work than they can do.
//!
//! Everything is arithmetic on a list of events, so that minutes of load take milliseconds.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]
#![allow(dead_code, unreachable_pub, reason = "the algorithm's own file, of which a test needs a part")]

#[path = "../src/shed/limit.rs"]
mod limit;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use limit::{Began, Limit};

/// Seconds that work takes on a worker.
const TIME: f64 = 0.1;

/// How long work takes on a worker that has nothing else to do.
#[derive(Clone, Copy)]
enum Work {
    Even,
    /// Exponential, which is as uneven as real service times get.
    Uneven,
}

struct Server {
    workers: usize,
    /// Seconds.
    time: f64,
    work: Work,
    busy: usize,
    queue: VecDeque<Request>,
}

struct Client {
    limit: Limit,
    in_flight: usize,
    /// Requests that come in a second.
    offered: f64,
    seen: Seen,
}

#[derive(Clone, Copy)]
struct Request {
    client: usize,
    began: Began,
    at: f64,
}

/// What a client has seen since the books were last opened.
#[derive(Default)]
struct Seen {
    latencies: Vec<f64>,
    /// The limit at every answer.
    limits: Vec<f64>,
    refused: usize,
}

enum Event {
    Arrival(usize),
    Done(Request),
}

struct Simulation {
    now: f64,
    server: Server,
    clients: Vec<Client>,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    pending: std::collections::HashMap<u64, Event>,
    count: u64,
    chance: fastrand::Rng,
}

impl Simulation {
    fn new(seed: u64, workers: usize, time: f64, work: Work) -> Self {
        let server = Server { workers, time, work, busy: 0, queue: VecDeque::new() };
        Self {
            now: 0.0,
            server,
            clients: Vec::new(),
            events: BinaryHeap::new(),
            pending: std::collections::HashMap::new(),
            count: 0,
            chance: fastrand::Rng::with_seed(seed),
        }
    }

    fn client(&mut self, initial: u32, offered: f64) {
        let limit = Limit::new(1, initial, 1_000, 1.5);
        self.clients.push(Client { limit, in_flight: 0, offered, seen: Seen::default() });
        self.at(self.now, Event::Arrival(self.clients.len() - 1));
    }

    fn at(&mut self, time: f64, event: Event) {
        self.count += 1;
        self.events.push(Reverse(((time * 1e9) as u64, self.count)));
        self.pending.insert(self.count, event);
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.chance.f64()).ln()
    }

    fn start(&mut self, request: Request) {
        let time = match self.server.work {
            Work::Even => self.server.time,
            Work::Uneven => self.exponential(self.server.time),
        };
        self.at(self.now + time, Event::Done(request));
    }

    fn fill(&mut self) {
        while self.server.busy < self.server.workers {
            let Some(request) = self.server.queue.pop_front() else { return };
            self.server.busy += 1;
            self.start(request);
        }
    }

    fn run(&mut self, seconds: f64) {
        let end = self.now + seconds;
        while let Some(Reverse((nanos, id))) = self.events.pop() {
            self.now = nanos as f64 / 1e9;
            match self.pending.remove(&id).unwrap() {
                Event::Arrival(client) => self.arrival(client),
                Event::Done(request) => self.done(request),
            }
            if self.now >= end {
                return;
            }
        }
    }

    fn arrival(&mut self, index: usize) {
        let gap = 1.0 / self.clients[index].offered;
        let gap = self.exponential(gap);
        self.at(self.now + gap, Event::Arrival(index));
        let client = &mut self.clients[index];
        if client.in_flight >= client.limit.allowed() {
            client.seen.refused += 1;
            return;
        }
        client.in_flight += 1;
        let began = client.limit.begin(client.in_flight);
        self.server.queue.push_back(Request { client: index, began, at: self.now });
        self.fill();
    }

    fn done(&mut self, request: Request) {
        let client = &mut self.clients[request.client];
        client.in_flight -= 1;
        let latency = self.now - request.at;
        client.limit.answered(request.began, Duration::from_secs_f64(latency));
        client.seen.latencies.push(latency);
        client.seen.limits.push(client.limit.allowed() as f64);
        self.server.busy -= 1;
        self.fill();
    }

    /// Lets time pass, and then looks at what happens for `seconds`.
    fn watch(&mut self, settle: f64, seconds: f64) -> Vec<Seen> {
        self.run(settle);
        self.clients.iter_mut().for_each(|client| client.seen = Seen::default());
        self.run(seconds);
        self.clients.iter_mut().map(|client| std::mem::take(&mut client.seen)).collect()
    }
}

impl Seen {
    fn mean_limit(&self) -> f64 {
        self.limits.iter().sum::<f64>() / self.limits.len() as f64
    }

    fn mean_latency(&self) -> f64 {
        self.latencies.iter().sum::<f64>() / self.latencies.len() as f64
    }

    fn percentile(&mut self, share: f64) -> f64 {
        let at = (self.latencies.len() as f64 * share) as usize;
        *self.latencies.select_nth_unstable_by(at, f64::total_cmp).1
    }
}

/// What one client sees at the server as it is now.
fn watch_one(sim: &mut Simulation) -> Seen {
    sim.watch(20.0, 40.0).remove(0)
}

/// One client that offers three times what the server can do.
fn one(seed: u64, workers: usize, work: Work) -> Simulation {
    let mut sim = Simulation::new(seed, workers, TIME, work);
    sim.client(10, 3.0 * workers as f64 / TIME);
    sim
}

impl Seen {
    /// The share of what the server can do.
    fn share(&self, server: &Server) -> f64 {
        self.latencies.len() as f64 / (40.0 * server.workers as f64 / server.time)
    }

    fn check(&self, server: &Server, what: &str, band: std::ops::Range<f64>, least: f64, slowest: f64) {
        let limit = self.mean_limit() / server.workers as f64;
        let (share, latency) = (self.share(server), self.mean_latency() / server.time);
        println!(
            "{what}: limit {limit:.2} of the workers, {share:.2} of capacity, {latency:.2} times unloaded"
        );
        assert!(band.contains(&limit), "{what}: the limit is {limit:.2} times the workers");
        assert!(share >= least, "{what}: throughput is {share:.2} of the capacity");
        assert!(latency <= slowest, "{what}: latency is {latency:.2} times the unloaded one");
    }
}

#[test]
fn finds_the_capacity_of_a_server_and_keeps_its_latency() {
    for (workers, seed) in [(4, 1), (20, 2), (100, 3)] {
        let mut sim = one(seed, workers, Work::Even);
        let mut seen = watch_one(&mut sim);
        let what = format!("{workers} workers, even work");
        seen.check(&sim.server, &what, 1.0..1.7, 0.85, 1.7);
        assert!(seen.percentile(0.99) < 3.0 * TIME, "{what}: {}", seen.percentile(0.99));
        assert!(seen.refused > seen.latencies.len(), "the rest is refused");
    }
}

#[test]
fn finds_it_also_where_work_is_uneven() {
    for (workers, seed) in [(20, 4), (100, 5)] {
        let mut sim = one(seed, workers, Work::Uneven);
        let seen = watch_one(&mut sim);
        seen.check(&sim.server, &format!("{workers} workers, uneven work"), 0.85..1.6, 0.7, 1.6);
    }
}

#[test]
fn shrinks_when_half_of_the_server_goes_and_grows_back() {
    let mut sim = one(6, 40, Work::Even);
    let before = watch_one(&mut sim).mean_limit();
    sim.server.workers = 20;
    let seen = watch_one(&mut sim);
    seen.check(&sim.server, "half of the workers", 1.0..1.7, 0.85, 1.7);
    assert!(seen.mean_limit() < 0.65 * before, "{} after {before}", seen.mean_limit());
    sim.server.workers = 40;
    watch_one(&mut sim).check(&sim.server, "all of them again", 1.0..1.7, 0.85, 1.7);
}

#[test]
fn takes_a_server_at_half_speed_for_what_it_is() {
    let mut sim = one(7, 20, Work::Even);
    sim.run(30.0);
    sim.server.time = 2.0 * TIME;
    let limits = (0..60).map(|_| {
        sim.run(0.1);
        sim.clients[0].limit.allowed()
    });
    assert!(limits.min() < Some(16), "it shrinks first, as it would for a queue");
    watch_one(&mut sim).check(&sim.server, "half speed", 1.0..1.7, 0.85, 1.7);
    sim.server.time = TIME;
    watch_one(&mut sim).check(&sim.server, "full speed again", 1.0..1.7, 0.85, 1.7);
}

#[test]
fn steady_overload_does_not_make_the_limit_creep_up() {
    let mut sim = one(8, 20, Work::Even);
    sim.run(600.0);
    watch_one(&mut sim).check(&sim.server, "after ten minutes", 1.0..1.7, 0.85, 1.7);
}

#[test]
fn two_clients_of_one_server_both_get_a_share_whoever_comes_first() {
    for (first, second, work) in [(10, 10, Work::Even), (100, 1, Work::Even), (10, 10, Work::Uneven)] {
        let mut sim = Simulation::new(9, 20, TIME, work);
        sim.client(first, 600.0);
        sim.run(30.0);
        sim.client(second, 600.0);
        let seen = sim.watch(60.0, 120.0);
        let total: usize = seen.iter().map(|seen| seen.latencies.len()).sum();
        for seen in &seen {
            let share = seen.latencies.len() as f64 / total as f64;
            let latency = seen.mean_latency() / TIME;
            println!("{share:.2} of what is done, {latency:.2} times unloaded");
            assert!((0.3..0.7).contains(&share), "one has {share:.2} of what is done");
            assert!(latency < 2.5, "latency is {latency:.2} times the unloaded one");
        }
        assert!(total as f64 > 0.8 * 120.0 * 200.0, "{total}");
    }
}

#[test]
fn a_client_that_asks_for_little_is_never_refused() {
    let mut sim = Simulation::new(10, 20, TIME, Work::Uneven);
    sim.client(10, 20.0);
    let seen = watch_one(&mut sim);
    assert_eq!(seen.refused, 0);
    assert!(seen.mean_latency() < 1.2 * TIME);
}
