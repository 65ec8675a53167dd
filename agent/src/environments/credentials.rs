//! Random passwords for the databases of a stack, put wherever the stack repeats the one that its file names.
//!
//! A password that comes from `${VARIABLE:-default}` is replaced through that variable. A literal one is replaced where
//! it stands as a whole: as a store's own setting, as the password of a URL, as the value of a variable whose name says
//! that it is a password, and behind a command's password option.

use std::collections::BTreeMap;

use domain::stack::{Service, Stack, StoreKind};
use manifest::Problem;
use manifest::stack::{Input, Reading};

/// Most variables of a file that are looked at.
const MAX_VARIABLES: usize = 64;
/// Cannot be the value of anything else.
const MARK: &str = "muster-mark-6f1d";

/// Passwords by where they come from: `variable NAME` or `literal SERVICE N`.
pub type Credentials = BTreeMap<String, String>;

/// Reads the stack with passwords of its own. Those in `held` are used again; new ones are made by `random` and added.
///
/// # Errors
/// All problems of the file.
pub fn read(
    input: Input<'_>,
    held: &mut Credentials,
    random: &mut dyn FnMut() -> String,
) -> Result<Reading, Vec<Problem>> {
    let mut variables = input.variables.clone();
    let first = manifest::stack::read(input)?;
    if first.stack.settings.credentials == domain::stack::Credentials::Keep {
        return Ok(first);
    }
    // Those whose names say so first: of a large file only so many are looked at.
    let (likely, others): (Vec<&String>, Vec<&String>) = first.names.iter().partition(|name| says_password(name));
    for name in likely.into_iter().chain(others).take(MAX_VARIABLES).cloned() {
        let mut probe = input.variables.clone();
        probe.insert(name.clone(), MARK.to_owned());
        let Ok(reading) = manifest::stack::read(Input { variables: &probe, ..input }) else { continue };
        if stores(&reading.stack).any(|(_, service, kind)| secrets(service, kind).contains(&MARK)) {
            let password = held.entry(format!("variable {name}")).or_insert_with(&mut *random);
            variables.insert(name, password.clone());
        }
    }
    let mut reading = if variables == *input.variables {
        first
    } else {
        manifest::stack::read(Input { variables: &variables, ..input })?
    };
    for (key, literal) in literals(&reading.stack, held) {
        let password = held.entry(key).or_insert_with(&mut *random).clone();
        for service in reading.stack.services.values_mut() {
            replace(service, &literal, &password);
        }
    }
    Ok(reading)
}

/// The password that a store asks for, after [`read`].
#[must_use]
pub fn password(service: &Service) -> Option<&str> {
    secrets(service, service.store?).into_iter().next_back()
}

fn stores(stack: &Stack) -> impl Iterator<Item = (&String, &Service, StoreKind)> {
    stack.services.iter().filter_map(|(name, service)| Some((name, service, service.store?)))
}

/// The variables in which stores take passwords; the one of the user that others connect as comes last.
fn settings(kind: StoreKind) -> &'static [&'static str] {
    match kind {
        StoreKind::Postgres => &["POSTGRES_PASSWORD"],
        StoreKind::Mysql => &["MYSQL_ROOT_PASSWORD", "MARIADB_ROOT_PASSWORD", "MYSQL_PASSWORD", "MARIADB_PASSWORD"],
        StoreKind::Redis => &["REDIS_PASSWORD", "VALKEY_PASSWORD"],
        StoreKind::Elasticsearch => &["ELASTIC_PASSWORD", "OPENSEARCH_INITIAL_ADMIN_PASSWORD"],
    }
}

fn secrets(service: &Service, kind: StoreKind) -> Vec<&str> {
    let from_environment = settings(kind).iter().filter_map(|name| service.environment.get(*name).map(String::as_str));
    let from_files = settings(kind).iter().filter_map(|name| {
        let path = service.environment.get(&format!("{name}_FILE"))?;
        service.files.iter().find(|file| file.target == *path).map(|file| file.content.0.trim_end())
    });
    let command = service.command.as_deref().unwrap_or_default();
    let from_command = command.windows(2).filter(|pair| is_option(&pair[0])).map(|pair| pair[1].as_str());
    from_environment.chain(from_files).chain(from_command).filter(|text| !text.is_empty()).collect()
}

/// Whether the word after this one on a command line is a password.
fn is_option(word: &str) -> bool {
    matches!(word, "--requirepass" | "--masterauth" | "--password" | "--pass" | "-a")
}

/// Literal passwords of the stores that are not made by us already.
fn literals(stack: &Stack, held: &Credentials) -> Vec<(String, String)> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for (name, service, kind) in stores(stack) {
        for (index, secret) in secrets(service, kind).into_iter().enumerate() {
            let ours = held.iter().any(|(key, value)| key.starts_with("variable ") && value == secret);
            if !ours && !found.contains_key(secret) {
                found.insert(secret.to_owned(), format!("literal {name} {index}"));
            }
        }
    }
    found.into_iter().map(|(literal, key)| (key, literal)).collect()
}

fn replace(service: &mut Service, literal: &str, password: &str) {
    for (name, value) in &mut service.environment {
        if value == literal && says_password(name) {
            password.clone_into(value);
        } else if let Some(changed) = replace_in_url(value, literal, password) {
            *value = changed;
        }
    }
    for file in &mut service.files {
        if file.content.0.trim_end() == literal {
            file.content.0 = file.content.0.replacen(literal, password, 1);
        }
    }
    for words in [&mut service.command, &mut service.entrypoint].into_iter().flatten() {
        for index in 1..words.len() {
            if words[index] == literal && is_option(&words[index - 1]) {
                password.clone_into(&mut words[index]);
            }
        }
    }
}

fn says_password(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    ["PASS", "PWD", "SECRET", "AUTH"].iter().any(|word| upper.contains(word))
}

/// `scheme://user:LITERAL@…` with the password replaced.
fn replace_in_url(value: &str, literal: &str, password: &str) -> Option<String> {
    let scheme = value.find("://")? + 3;
    let rest = &value[scheme..];
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let at = authority.rfind('@')?;
    let colon = authority[..at].find(':')?;
    (authority[colon + 1..at] == *literal)
        .then(|| format!("{}{}:{password}{}", &value[..scheme], &authority[..colon], &rest[at..]))
}

/// 24 random letters and digits, safe in URLs, shells and SQL.
///
/// # Errors
/// The operating system gives no random bytes.
pub fn random_password() -> std::io::Result<String> {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let bytes = crate::clock::random::<24>()?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str, held: &mut Credentials) -> Stack {
        let mut count = 0;
        let mut random = || {
            count += 1;
            format!("random{count}")
        };
        let variables = BTreeMap::new();
        let input = Input { file: "compose.yaml", text, variables: &variables, files: &|_| None };
        read(input, held, &mut random).expect("a good stack").stack
    }

    const VARIABLES: &str = "
services:
  postgres:
    image: postgres:15
    environment: { POSTGRES_USER: bot, POSTGRES_PASSWORD: \"${POSTGRES_PASSWORD:-bot}\", POSTGRES_DB: bot }
  redis:
    image: redis:7
    command: [redis-server, --requirepass, \"${REDIS_PASSWORD:-bot}\"]
  web:
    image: bot:dev
    environment:
      DATABASE_URL: postgresql://bot:${POSTGRES_PASSWORD:-bot}@postgres:5432/bot
      REDIS_URL: redis://:${REDIS_PASSWORD:-bot}@redis:6379/0
      LIMIT: ${LIMIT:-50}
";

    #[test]
    fn passwords_from_variables_are_replaced_everywhere_and_nothing_else_is() {
        let mut held = Credentials::new();
        let stack = read_text(VARIABLES, &mut held);
        let postgres = password(&stack.services["postgres"]).expect("one").to_owned();
        let redis = password(&stack.services["redis"]).expect("one").to_owned();
        assert!(postgres.starts_with("random") && redis.starts_with("random") && postgres != redis);
        let web = &stack.services["web"].environment;
        assert_eq!(web["DATABASE_URL"], format!("postgresql://bot:{postgres}@postgres:5432/bot"));
        assert_eq!(web["REDIS_URL"], format!("redis://:{redis}@redis:6379/0"));
        assert_eq!(web["LIMIT"], "50");
        assert_eq!(stack.services["postgres"].environment["POSTGRES_USER"], "bot");
        // The same ones after a restart of the agent.
        assert_eq!(read_text(VARIABLES, &mut held.clone()), stack);
    }

    #[test]
    fn literal_passwords_are_replaced_where_they_stand_as_a_whole() {
        let text = "
services:
  db:
    image: postgres:15
    environment: { POSTGRES_USER: shop, POSTGRES_PASSWORD: shop, POSTGRES_DB: shop }
  web:
    image: shop
    environment: { DATABASE_URL: \"postgres://shop:shop@db/shop?x=shop\", DB_PASSWORD: shop, APP_NAME: shop }
";
        let stack = read_text(text, &mut Credentials::new());
        let db = password(&stack.services["db"]).expect("one");
        assert_ne!(db, "shop");
        assert_eq!(stack.services["db"].environment["POSTGRES_USER"], "shop");
        let web = &stack.services["web"].environment;
        assert_eq!(web["DATABASE_URL"], format!("postgres://shop:{db}@db/shop?x=shop"));
        assert_eq!(web["DB_PASSWORD"], db);
        assert_eq!(web["APP_NAME"], "shop");
    }

    #[test]
    fn a_password_in_a_secret_is_replaced_in_every_service_that_reads_it() {
        let text = "
services:
  db: { image: postgres, environment: { POSTGRES_PASSWORD_FILE: /run/secrets/password }, secrets: [password] }
  web: { image: shop, secrets: [{ source: password, target: db }] }
secrets: { password: { environment: PASSWORD } }
";
        let variables = [("PASSWORD".to_owned(), "shop".to_owned())].into();
        let input = Input { file: "compose.yaml", text, variables: &variables, files: &|_| None };
        let mut random = || "random".to_owned();
        let stack = read(input, &mut Credentials::new(), &mut random).expect("a good stack").stack;
        assert_eq!(password(&stack.services["db"]), Some("random"));
        assert_eq!(stack.services["web"].files[0].content.0, "random");
        let kept = format!("x-muster: {{ credentials: keep }}{text}");
        let stack = read(Input { text: &kept, ..input }, &mut Credentials::new(), &mut random).expect("a good stack");
        assert_eq!(password(&stack.stack.services["db"]), Some("shop"));
    }

    #[test]
    fn a_store_without_a_password_stays_so() {
        let stack = read_text("services: { redis: { image: \"redis:7\" } }", &mut Credentials::new());
        assert_eq!(password(&stack.services["redis"]), None);
    }

    #[test]
    fn random_passwords_differ_and_need_no_escaping() {
        let (one, two) = (random_password().expect("random"), random_password().expect("random"));
        assert_ne!(one, two);
        assert!(one.len() == 24 && one.bytes().all(|b| b.is_ascii_alphanumeric()));
    }
}
