//! Configurations that are refused, by `check` and by `serve`, and those that come with the program.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::path::{Path, PathBuf};

use http::Method;
use process::{Finished, Launch, prompt_config};
use serde_json::Value;

const NAME: &str = "throughline.toml";

/// `check` and `serve` on the same file.
async fn both(config: &str) -> [Finished; 2] {
    let check = Launch::new(&["check", NAME]).file(NAME, config).finish().await;
    [check, Launch::serve(config).finish().await]
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_its_place_and_a_cure() {
    let model = prompt_config("");
    for (config, place, message) in [
        ("[server]\nlisten = 8080\n".to_owned(), "2:10", "listen"),
        ("[server]\nlissten = \"127.0.0.1:0\"\n".to_owned(), "2:1", "did you mean `listen`?"),
        (model.replace("provider = \"sim\"", "provider = \"simm\""), "10:12", "did you mean `sim`?"),
        (format!("{model}\n[models.auto]\ntimeout = {{ limit = \"0s\" }}\n"), "14:21", "`limit` is 0s"),
        (format!("{model}\n[models.auto]\ndefault_route = \"onlly\"\n"), "14:17", "did you mean `only`?"),
        (format!("{model}\n[models.auto]\nfallback = [\"onlly\"]\n"), "14:13", "did you mean `only`?"),
        (format!("{model}retry = {{ attempts = 0 }}\n"), "12:22", "write 1 to 100"),
        (format!("{model}hedge = {{ afer = \"2s\" }}\n"), "12:11", "did you mean `after`?"),
        (format!("{model}circuit_breaker = {{ failure_rate = 2 }}\n"), "12:36", "above 0 and at most 1"),
        (
            format!(
                "{model}\n[providers.o.openai]\nbase_url = \"https://h/v1\"\napi_key = \"env:NO_SUCH_KEY\"\n"
            ),
            "15:11",
            "NO_SUCH_KEY",
        ),
        (format!("{model}\n[server\n"), "13:8", ""),
        ("[server]\nlisten = \"0.0.0.0:8080\"\n".to_owned() + &model, "2:10", "allow_public_without_auth"),
    ] {
        for ended in both(&config).await {
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{config}\n{ended:?}");
            let place = format!("{NAME}:{place}: ");
            assert!(
                ended.stderr.contains(&place) && ended.stderr.contains(message),
                "{place}{message}: {}",
                ended.stderr
            );
        }
    }
}

#[tokio::test]
async fn what_guards_a_route_is_shown_in_its_order() {
    let guarded = "timeout = { limit = \"20s\" }\nhedge = { after = \"2s\" }\ncircuit_breaker = {}\nretry = {}\n\
                   [models.auto]\ndefault_route = \"only\"\nfallback = [\"spare\"]\n\
                   [models.auto.routes.spare]\nprovider = \"sim\"\nmodel = \"gpt-4o\"\n";
    let check = Launch::new(&["check", NAME]).file(NAME, &(prompt_config("") + guarded)).finish().await;
    let expected = "
auto
  workflow auto
    router auto
      only: fallback auto/only
        primary: retry auto/only
          hedge auto/only
            circuit_breaker auto/only
              timeout auto/only
                chat sim/gpt-4o-mini
        spare: chat sim/gpt-4o
      spare: chat sim/gpt-4o
";
    assert!(check.stdout.ends_with(expected), "{check:?}");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_refused() {
    for args in [["check", "none.toml"].as_slice(), &["serve", "--config", "none.toml"], &["check", "."]] {
        let ended = Launch::new(args).finish().await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(ended.stderr.contains(args.last().unwrap()), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn every_mistake_is_told_at_once() {
    let config = prompt_config("[server]\nmax_body = \"much\"\ndrain_timeout = \"0s\"");
    for ended in both(&config).await {
        assert!(ended.stderr.contains(":2:12: ") && ended.stderr.contains(":3:17: "), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn other_machines_are_let_in_only_by_the_file() {
    let config = prompt_config("");
    let public = ["serve", "--config", NAME, "--listen", "0.0.0.0:0", "--metrics-listen", "127.0.0.1:0"];
    let ended = Launch::new(&public).file(NAME, &config).finish().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("allow_public_without_auth"), "{}", ended.stderr);
    let ended =
        Launch::new(&["demo", "--listen", "0.0.0.0:0", "--metrics-listen", "127.0.0.1:0"]).finish().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);

    let allowed = prompt_config("[server]\nallow_public_without_auth = true");
    let gateway = Launch::new(&public).file(NAME, &allowed).start().await;
    assert!(gateway.address.ip().is_unspecified());
    assert_eq!(gateway.stop().await.code, Some(0));
}

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect()
}

#[tokio::test]
async fn every_example_is_good_and_can_be_served() {
    let examples = examples();
    assert!(examples.len() >= 3, "{examples:?}");
    for example in &examples {
        let path = example.to_str().unwrap();
        let check = |args: &[&str]| Launch::new(args).env("OPENAI_API_KEY", "sk-test-1").finish();
        let good = check(&["check", path]).await;
        assert_eq!(good.code, Some(0), "{}", good.stderr);
        assert!(good.stdout.contains("router") && !good.stdout.contains("sk-test"), "{}", good.stdout);

        let graphs = check(&["check", path, "--json"]).await;
        let graphs: Value = serde_json::from_str(&graphs.stdout).unwrap();
        let gateway = Launch::serve(&std::fs::read_to_string(example).unwrap())
            .env("OPENAI_API_KEY", "sk-test-1")
            .start()
            .await;
        let models = gateway.send(Method::GET, "/v1/models", "").await.json();
        let names: Vec<_> = models["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
        assert_eq!(names, graphs.as_object().unwrap().keys().collect::<Vec<_>>(), "{path}");
        assert_eq!(models["object"], "list");
    }
}

#[tokio::test]
async fn without_a_configuration_the_demonstration_is_served() {
    let gateway =
        Launch::new(&["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]).start().await;
    let models = gateway.send(Method::GET, "/v1/models", "").await.json();
    assert_eq!(models["data"][0]["id"], "auto");
    gateway.says("no configuration was found: there is no throughline.toml in this folder").await;
    gateway.says("`throughline serve --help` shows one to begin with").await;
    let here = Launch::new(&["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])
        .file(NAME, &prompt_config("").replace("models.auto", "models.mine"));
    let here = here.start().await;
    let models = here.send(Method::GET, "/v1/models", "").await.json();
    assert_eq!(models["data"][0]["id"], "mine", "the file in the working directory");
    let ended = here.stop().await;
    assert!(!ended.stderr.contains("no configuration was found"), "{}", ended.stderr);
}

#[tokio::test]
async fn check_reads_what_serve_would_and_says_which_it_was() {
    let check = async |args: &[&str]| {
        let other = prompt_config("").replace("models.auto", "models.other");
        let launch = Launch::new(&[&["check"], args].concat()).file(NAME, &prompt_config(""));
        launch.file("other.toml", &other).finish().await
    };
    for (args, file, model) in [
        (&[][..], NAME, "auto"),
        (&[NAME], NAME, "auto"),
        (&["other.toml"], "other.toml", "other"),
        (&["--config", "other.toml"], "other.toml", "other"),
    ] {
        let ended = check(args).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{args:?} {ended:?}");
        assert!(ended.stdout.starts_with(&format!("{file} is good: 1 model\n")), "{}", ended.stdout);
        assert!(ended.stdout.contains(&format!("\n{model}\n")), "{}", ended.stdout);
    }
    let graphs: Value = serde_json::from_str(&check(&["--json"]).await.stdout).unwrap();
    assert!(graphs["auto"].is_object(), "{graphs}");
    let both = check(&[NAME, "--config", "other.toml"]).await;
    assert_eq!((both.code, both.stdout.as_str()), (Some(2), ""), "{both:?}");

    let wrong = Launch::new(&["check"]).file(NAME, "[server]\nlisten = 8080\n").finish().await;
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.starts_with("throughline.toml:2:10: "), "{}", wrong.stderr);
}

#[tokio::test]
async fn where_there_is_nothing_to_check_that_is_said() {
    let ended = Launch::new(&["check"]).finish().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
    assert!(
        ended.stderr.contains("no configuration was found: there is no throughline.toml"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("throughline check FILE"), "{}", ended.stderr);
}
