//! A chain may be as long as one likes: this one has a hundred stages. bench/RESULTS.md says what that costs the compiler.

use throughline::testing::Recorder;
use throughline::workflow;

macro_rules! chain {
    ($($digit:literal)*) => { workflow("start", |n: u64| async move { Ok(n) }) $(>> ten!($digit))* };
}

macro_rules! ten {
    ($digit:literal) => {
        add!($digit)
            >> add!($digit)
            >> add!($digit)
            >> add!($digit)
            >> add!($digit)
            >> add!($digit)
            >> add!($digit)
            >> add!($digit)
            >> add!($digit)
            >> add!($digit)
    };
}

macro_rules! add {
    ($digit:literal) => {
        workflow(concat!("add ", $digit), |n: u64| async move { Ok(n + $digit) })
    };
}

macro_rules! flat {
    ($($n:literal)*) => { add!(0) $(>> add!($n))* };
}

#[tokio::test]
async fn a_hundred_stages_run_in_order_and_give_the_right_value() {
    let flow = flat!(
        1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38
        39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73
        74 75 76 77 78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 96 97 98 99
    );
    let recorder = Recorder::new();
    assert_eq!(flow.run(50, &recorder.context()).await.unwrap(), 5_000);
    let order: Vec<_> = recorder.spans().into_iter().map(|span| span.name.into_owned()).collect();
    assert_eq!(order, (0..100).map(|n| format!("step add {n}")).collect::<Vec<_>>());
    assert_eq!(flow.describe().children().len(), 100, "it is one pipe to those who look at it");
}

#[tokio::test]
async fn ten_chains_of_ten_make_a_chain_of_a_hundred() {
    let flow = chain!(0 1 2 3 4 5 6 7 8 9);
    let recorder = Recorder::new();
    assert_eq!(flow.run(0, &recorder.context()).await.unwrap(), 450);
    assert_eq!(recorder.spans().len(), 101);
}
