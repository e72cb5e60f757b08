//! The configuration as its users see it: its page of documentation, and its agreement with the parts that it configures.

use std::path::Path;

use smp::config::schema::{Allowed, KEYS, Key, Type, find};
use smp::config::{Config, takes};
use smp::transfer::{Client, ClientSettings, StoreSettings};

const INTRODUCTION: &str = "\
# Configuration

<!-- Generated from src/config/schema.rs by tests/configuration.rs; SMP_BLESS=1 cargo test --test configuration writes it anew. -->

Settings come from four places. The later wins:

1. the default in the table below,
2. a JSON file, `~/.smp/config.json` unless another is named,
3. the environment: `SMP_` and the key in capitals with `_` for each dot (`SMP_CLOUD_BUCKET` for `cloud.bucket`); an empty variable counts as absent,
4. `smp_config_set` and its kin, `--set` on the command line, and for one study its request.

The file:

```json
{
  \"cloud\": {
    \"provider\": \"s3\",
    \"bucket\": \"hospital-encrypted-data\",
    \"region\": \"us-east-1\"
  },
  \"user_id\": \"researcher@university.edu\",
  \"workspace\": \"~/secure-medical-workspace\"
}
```

Keys may be nested as here or dotted (`\"cloud.bucket\": \"...\"`). An unknown key, a key that comes twice and a value that its key does not take are
errors, and nothing is ignored. In paths, `~` is the home folder, `$NAME` and `${NAME}` are variables of the environment, `$$` is a dollar; a variable that
is not set is an error. Lists are JSON arrays or text with commas.

Keys marked *secret* are never shown again, and a file that holds one must be its owner's alone (`chmod 600`); otherwise it is refused. Credentials of a
provider belong where its own tools look for them (for s3 the AWS variables, profiles and roles), not here.
";

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    let mut section = None;
    for key in KEYS {
        let of_key = key.name.split_once('.').map(|(section, _)| section);
        if section != Some(of_key) {
            section = Some(of_key);
            let title = of_key.map_or("Of the whole".to_owned(), |section| format!("`{section}`"));
            page.push_str(&format!("\n## {title}\n\n| key | default | takes | |\n|---|---|---|---|\n"));
        }
        page.push_str(&row(key));
    }
    page
}

fn row(key: &Key) -> String {
    let default = if key.default.is_empty() { "unset".to_owned() } else { format!("`{}`", key.default) };
    let secret = if key.secret { " *Secret.*" } else { "" };
    format!("| `{}` | {default} | {} | {}{secret} |\n", key.name, takes(key), key.help)
}

#[test]
fn the_page_of_documentation_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    if std::env::var_os("SMP_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "docs/configuration.md is not what the table says; SMP_BLESS=1 cargo test --test configuration rewrites it");
}

#[test]
fn the_pages_own_example_is_a_configuration() {
    let json = INTRODUCTION.split("```json").nth(1).unwrap().split("```").next().unwrap();
    let mut config = Config::default();
    config.merge_json(json).unwrap();
    config.check().unwrap();
    assert_eq!(config.get("cloud.provider").unwrap().as_deref(), Some("s3"));
}

#[test]
fn every_provider_that_may_be_named_is_known_to_the_stores() {
    let Allowed::OneOf(providers) = find("cloud.provider").unwrap().allowed else { panic!("a list of providers") };
    for provider in providers {
        let store =
            StoreSettings { provider: (*provider).into(), bucket: "/".into(), region: Some("r".into()), ..StoreSettings::default() };
        // Some have no such setting and some find no credentials here; what counts is that the name is known.
        let refusal = Client::open(&store, ClientSettings::default()).err().map(|error| error.detail().to_owned()).unwrap_or_default();
        assert!(!refusal.starts_with("cloud.provider must be one of"), "{provider}: {refusal}");
    }
    let known: Vec<&str> = providers.iter().copied().filter(|provider| smp::transfer::PROVIDERS.contains(provider)).collect();
    assert_eq!(known, smp::transfer::PROVIDERS);
}

#[test]
fn the_defaults_of_transfers_are_the_tables() {
    let settings = ClientSettings::default();
    let config = Config::default();
    let number = |key: &str| config.get(key).unwrap().unwrap().parse::<f64>().unwrap();
    assert_eq!(number("transfer.parallel"), settings.parallel as f64);
    assert_eq!(number("transfer.timeout_s"), settings.timeout.as_secs_f64());
    assert_eq!(number("transfer.retries"), f64::from(settings.retries));
    assert_eq!(number("transfer.max_bytes"), settings.max_bytes as f64);
}

#[test]
fn every_key_is_helped_and_every_path_has_a_home() {
    for key in KEYS {
        assert!(key.help.ends_with('.') && !key.help.contains('|') && key.help.len() < 140, "{}", key.name);
        if key.kind == Type::Path && !key.default.is_empty() {
            assert!(key.default.starts_with("~/.smp/"), "{}", key.name);
        }
    }
}
