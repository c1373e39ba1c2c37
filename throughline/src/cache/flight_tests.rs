//! Single flight by itself: some journeys, and any sequence of events against a plain list of who is where.
//! (The interleavings of threads are in `tests/interleavings_flight.rs`.)

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use proptest::prelude::*;

use super::flight::{Flights, Joined, Lead};

type Board = Arc<Flights<u8, u64>>;

async fn leader(flights: &Board) -> Lead<u8, u64> {
    match flights.join(0).await {
        Joined::Leader(lead) => lead,
        Joined::Landed(_) => panic!("nobody has landed"),
    }
}

fn follower(flights: &Board) -> tokio::task::JoinHandle<Joined<u8, u64>> {
    let flights = Arc::clone(flights);
    tokio::spawn(async move { flights.join(0).await })
}

#[tokio::test]
async fn followers_get_what_the_leader_computed() {
    let flights = Board::default();
    let lead = leader(&flights).await;
    let followers: Vec<_> = (0..10).map(|_| follower(&flights)).collect();
    tokio::task::yield_now().await;
    lead.land(42);
    for follower in followers {
        assert!(matches!(follower.await.unwrap(), Joined::Landed(42)));
    }
    assert!(matches!(flights.join(0).await, Joined::Landed(42)), "a newcomer, before the leader has gone");
    drop(lead);
    assert_eq!(flights.len(), 0);
}

#[tokio::test]
async fn a_dropped_leader_hands_over_to_one_follower() {
    let flights = Board::default();
    let lead = leader(&flights).await;
    let (first, second) = (follower(&flights), follower(&flights));
    tokio::task::yield_now().await;
    drop(lead);
    let Joined::Leader(lead) = first.await.unwrap() else { panic!("the first follower takes the lead") };
    tokio::task::yield_now().await;
    assert!(!second.is_finished(), "the second goes on waiting");
    lead.land(7);
    assert!(matches!(second.await.unwrap(), Joined::Landed(7)));
    drop(lead);
    assert_eq!(flights.len(), 0);
}

#[tokio::test]
async fn nothing_is_left_when_everybody_has_gone() {
    let flights = Board::default();
    let lead = leader(&flights).await;
    let follower = follower(&flights);
    tokio::task::yield_now().await;
    drop(lead);
    follower.abort();
    drop(follower.await);
    assert_eq!(flights.len(), 0);
    drop(leader(&flights).await);
    assert_eq!(flights.len(), 0);
}

/// What can happen; a number chooses one of those whom it can happen to.
#[derive(Clone, Copy, Debug)]
enum Act {
    Join(u8),
    TryLead(u8),
    /// Polls a follower, woken or not.
    Poll(usize),
    /// A follower goes away.
    Leave(usize),
    Land(usize, u64),
    Fail(usize, u64),
    /// A leader goes away.
    Abandon(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..2_u8).prop_map(Act::Join),
        1 => (0..2_u8).prop_map(Act::TryLead),
        3 => any::<usize>().prop_map(Act::Poll),
        2 => any::<usize>().prop_map(Act::Leave),
        1 => (any::<usize>(), any::<u64>()).prop_map(|(who, value)| Act::Land(who, value)),
        1 => (any::<usize>(), any::<u64>()).prop_map(|(who, value)| Act::Fail(who, value)),
        2 => any::<usize>().prop_map(Act::Abandon),
    ];
    proptest::collection::vec(act, 1..80)
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is aboard of one flight, as it should be; flights stay in the list for ever.
#[derive(Debug, Default)]
struct Model {
    key: u8,
    led: bool,
    landed: Option<u64>,
    failures: u32,
    waiting: usize,
}

impl Model {
    /// Whether newcomers find it.
    fn is_open(&self) -> bool {
        self.led || (self.landed.is_none() && self.waiting > 0)
    }
}

struct Waiting {
    flight: usize,
    future: Pin<Box<dyn Future<Output = Joined<u8, u64>>>>,
    woken: Arc<Woken>,
}

/// The real thing and the model of it, side by side.
#[derive(Default)]
struct World {
    flights: Board,
    models: Vec<Model>,
    leads: Vec<(usize, Lead<u8, u64>)>,
    waiting: Vec<Waiting>,
}

impl World {
    fn open(&self, key: u8) -> Option<usize> {
        self.models.iter().rposition(|model| model.key == key && model.is_open())
    }

    fn act(&mut self, act: Act) -> Result<(), TestCaseError> {
        match act {
            Act::Join(key) => self.join(key),
            Act::TryLead(key) => self.try_lead(key),
            Act::Poll(who) if !self.waiting.is_empty() => {
                let who = self.waiting.remove(who % self.waiting.len());
                self.poll(who)
            }
            Act::Leave(who) if !self.waiting.is_empty() => {
                let who = self.waiting.remove(who % self.waiting.len());
                self.models[who.flight].waiting -= 1;
                drop(who);
                Ok(())
            }
            Act::Land(who, value) if !self.leads.is_empty() => {
                let (flight, lead) = &self.leads[who % self.leads.len()];
                lead.land(value);
                self.models[*flight].landed = Some(value);
                Ok(())
            }
            Act::Fail(who, value) if !self.leads.is_empty() => {
                let (flight, lead) = self.leads.remove(who % self.leads.len());
                lead.fail(value);
                let model = &mut self.models[flight];
                model.led = false;
                model.failures += 1;
                if model.failures == 2 {
                    model.landed = Some(value);
                }
                Ok(())
            }
            Act::Abandon(who) if !self.leads.is_empty() => {
                let (flight, lead) = self.leads.remove(who % self.leads.len());
                drop(lead);
                self.models[flight].led = false;
                Ok(())
            }
            Act::Poll(_) | Act::Leave(_) | Act::Land(..) | Act::Fail(..) | Act::Abandon(_) => Ok(()),
        }
    }

    fn launch(&mut self, key: u8) -> usize {
        self.models.push(Model { key, ..Model::default() });
        self.models.len() - 1
    }

    fn join(&mut self, key: u8) -> Result<(), TestCaseError> {
        let flight = self.open(key).unwrap_or_else(|| self.launch(key));
        self.models[flight].waiting += 1;
        let flights = Arc::clone(&self.flights);
        let future = Box::pin(async move { flights.join(key).await });
        self.poll(Waiting { flight, future, woken: Arc::default() })
    }

    fn try_lead(&mut self, key: u8) -> Result<(), TestCaseError> {
        let lead = self.flights.try_lead(key);
        prop_assert_eq!(lead.is_some(), self.open(key).is_none());
        if let Some(lead) = lead {
            let flight = self.launch(key);
            self.models[flight].led = true;
            self.leads.push((flight, lead));
        }
        Ok(())
    }

    /// A caller gets what has landed, or leads where nobody does, or goes on waiting.
    fn poll(&mut self, mut who: Waiting) -> Result<(), TestCaseError> {
        who.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&who.woken));
        let model = &mut self.models[who.flight];
        match who.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => {
                prop_assert!(model.led && model.landed.is_none(), "{model:?}");
                self.waiting.push(who);
            }
            Poll::Ready(Joined::Landed(value)) => {
                prop_assert_eq!(model.landed, Some(value));
                model.waiting -= 1;
            }
            Poll::Ready(Joined::Leader(lead)) => {
                prop_assert!(!model.led && model.landed.is_none(), "{model:?}");
                model.waiting -= 1;
                model.led = true;
                self.leads.push((who.flight, lead));
            }
        }
        Ok(())
    }

    /// Nobody sleeps who could go on, no key has two leaders, and what nobody is aboard of is gone.
    fn check(&self) -> Result<(), TestCaseError> {
        for (number, model) in self.models.iter().enumerate() {
            let aboard = || self.waiting.iter().filter(|who| who.flight == number);
            let woken = aboard().filter(|who| who.woken.0.load(Ordering::Relaxed)).count();
            if model.landed.is_some() {
                prop_assert_eq!(woken, model.waiting, "of {:?}", model);
            } else if !model.led && model.waiting > 0 {
                prop_assert!(woken > 0, "{model:?} stays without a leader");
            }
        }
        for key in 0..2 {
            let leads = self.leads.iter().filter(|(flight, _)| self.models[*flight].key == key);
            prop_assert!(leads.count() <= 1);
        }
        let aboard = self.models.iter().filter(|model| model.led || model.waiting > 0).count();
        prop_assert_eq!(self.flights.len(), aboard);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_happens_single_flight_does_what_a_plain_list_says(acts in acts()) {
        let mut world = World::default();
        for act in acts {
            world.act(act)?;
            world.check()?;
        }
        // Whoever is woken goes on, and every leader goes.
        loop {
            if let Some(at) = world.waiting.iter().position(|who| who.woken.0.load(Ordering::Relaxed)) {
                let who = world.waiting.remove(at);
                world.poll(who)?;
            } else if !world.leads.is_empty() {
                world.act(Act::Abandon(0))?;
            } else {
                break;
            }
            world.check()?;
        }
        prop_assert!(world.waiting.is_empty(), "{} were never woken", world.waiting.len());
        prop_assert_eq!(world.flights.len(), 0, "nothing is left behind");
    }
}
