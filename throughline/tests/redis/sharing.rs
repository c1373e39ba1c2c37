//! Who shares answers, who never does, and how the server lets us in.

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use throughline::{CacheConfig, Context};

use crate::rig::{Rig, at, raw, seen, tell};
use crate::server::Server;

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn replicas_share_answers() {
    let server = Server::start(&[]).await;
    let (one, other) = (Rig::new(at(&server.url())), Rig::new(at(&server.url()).connections(4).unwrap()));
    for n in 0..20 {
        one.ask(&format!("question {n}")).await;
        other.ask(&format!("question {n}")).await;
    }
    assert_eq!(one.outcomes(), seen(&[("miss", 20.0)]));
    assert_eq!(other.outcomes(), seen(&[("hit", 20.0)]));
    assert_eq!(other.runs(), 0);
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn another_prefix_cache_schema_tenant_or_database_is_another_cache() {
    let server = Server::start(&[]).await;
    let hour = Duration::from_secs(3600);
    let shout = || CacheConfig::new("shout", hour).unwrap();
    Rig::new(at(&server.url())).ask("the same").await;
    let others = [
        Rig::new(at(&server.url()).key_prefix("throughline:1")),
        Rig::new(at(&server.url()).key_prefix("")),
        Rig::with(at(&server.url()), CacheConfig::new("shout2", hour).unwrap()),
        Rig::with(at(&server.url()), shout().schema(1)),
        Rig::with(at(&server.url()), shout().scope("another model")),
        Rig::new(at(&format!("{}/3", server.url()))),
    ];
    for other in &others {
        other.ask("the same").await;
        assert_eq!(other.outcomes(), seen(&[("miss", 1.0)]), "{:?}", other.store);
    }
    let rig = Rig::new(at(&server.url()));
    let tenant = |name: &str| Context::builder().sink(rig.recorder.sink()).user_id(name).build();
    for name in ["ann", "bob", "a", "nn"] {
        rig.ask_as("the same", &tenant(name)).await;
    }
    assert_eq!(rig.outcomes(), seen(&[("miss", 4.0)]));
    rig.ask_as("the same", &tenant("ann")).await;
    assert_eq!(rig.outcomes(), seen(&[("miss", 4.0), ("hit", 1.0)]));
    let mut third = raw(&format!("{}/3", server.url())).await;
    assert_eq!(tell::<u32>(&mut third, &["DBSIZE"]).await, 1, "the database of the address is used");
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_user_who_may_do_little_is_enough() {
    let word = ["open", "sesame"].join("-");
    let user = ["--user", "cache", "on", &format!(">{word}"), "~app:*", "-@all", "+get", "+set", "+del"];
    let server = Server::start(&[&user[..], &["--user", "default", "off"]].concat()).await;
    let config = || at(&server.url()).username("cache").key_prefix("app");

    let rig = Rig::new(config().password(word.clone().into()));
    rig.until_it_hits("hello").await;

    for (config, reason) in [
        (config().password("wrong".into()), "redis refused user or password (WRONGPASS)"),
        (config(), "redis refused user or password (NOAUTH)"),
        (
            config().password(word.clone().into()).key_prefix("other"),
            "redis does not allow the user this command or key (NOPERM)",
        ),
    ] {
        let rig = Rig::new(config);
        for n in 0..5 {
            rig.ask(&format!("hello {n}")).await;
        }
        assert_eq!(rig.outcomes(), seen(&[("error", 5.0)]));
        assert_eq!(rig.down().as_deref(), Some(reason));
        assert!(!format!("{:?}", rig.store).contains(&word));
    }
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn tls_with_a_certificate_authority_of_ones_own() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &authority).unwrap().pem();
    let server = Server::start_tls(&certificate, &key.serialize_pem()).await;
    let url = format!("rediss://localhost:{}", server.address.port());

    let rig = Rig::new(at(&url).ca(authority.pem()).unwrap());
    rig.until_it_hits("hello").await;

    let strange = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem();
    let untrusted = "the tls connection to redis failed: its certificate is not trusted, or it speaks no tls";
    for (config, reason) in [
        (at(&url).ca(strange).unwrap(), untrusted),
        (at(&url), untrusted),
        (at(&url.replace("rediss", "redis")), "the connection to redis was lost"),
    ] {
        let rig = Rig::new(config);
        for n in 0..5 {
            rig.ask(&format!("hello {n}")).await;
        }
        assert_eq!(rig.outcomes(), seen(&[("error", 5.0)]));
        assert_eq!(rig.down().as_deref(), Some(reason));
    }
}
