//! How people and programs connect to a service: `<SERVICE>_URL`, `_HOST`, `_PORT`, `_USER`, `_PASSWORD`, `_DATABASE`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use domain::stack::{Service, StoreKind};

use super::credentials;

/// The variables of a service that is published at `address`.
#[must_use]
pub fn of(name: &str, service: &Service, address: SocketAddr) -> BTreeMap<String, String> {
    let prefix: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    let mut variables = BTreeMap::new();
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            variables.insert(format!("{prefix}_{key}"), value.to_owned());
        }
    };
    put("HOST", &address.ip().to_string());
    put("PORT", &address.port().to_string());
    let Some(kind) = service.store else {
        put("URL", &format!("http://{address}"));
        return variables;
    };
    let password = credentials::password(service).unwrap_or_default();
    let (scheme, user, database) = login(service, kind);
    put("USER", &user);
    put("PASSWORD", password);
    put("DATABASE", &database);
    let login = if password.is_empty() { user } else { format!("{user}:{password}") };
    let at = if login.is_empty() { "" } else { "@" };
    let slash = if database.is_empty() { "" } else { "/" };
    put("URL", &format!("{scheme}://{login}{at}{address}{slash}{database}"));
    variables
}

/// User and database of a PostgreSQL.
#[must_use]
pub fn postgres(service: &Service) -> (String, String) {
    let (_, user, database) = login(service, StoreKind::Postgres);
    (user, database)
}

/// Scheme, user and database, as the store's image reads them from its settings.
fn login(service: &Service, kind: StoreKind) -> (&'static str, String, String) {
    let setting = |names: &[&str]| names.iter().find_map(|name| service.environment.get(*name)).cloned();
    match kind {
        StoreKind::Postgres => {
            let user = setting(&["POSTGRES_USER"]).unwrap_or_else(|| "postgres".to_owned());
            let database = setting(&["POSTGRES_DB"]).unwrap_or_else(|| user.clone());
            ("postgresql", user, database)
        }
        StoreKind::Mysql => {
            let user = setting(&["MYSQL_USER", "MARIADB_USER"]).unwrap_or_else(|| "root".to_owned());
            ("mysql", user, setting(&["MYSQL_DATABASE", "MARIADB_DATABASE"]).unwrap_or_default())
        }
        StoreKind::Redis => ("redis", String::new(), "0".to_owned()),
        StoreKind::Elasticsearch => {
            let secured = credentials::password(service).is_some();
            ("http", if secured { "elastic".to_owned() } else { String::new() }, String::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(yaml: &str) -> BTreeMap<String, String> {
        let empty = BTreeMap::new();
        let input = manifest::stack::Input { file: "c", text: yaml, variables: &empty, files: &|_| None };
        let stack = manifest::stack::read(input).expect("a good stack").stack;
        let (name, service) = stack.services.iter().next().expect("one");
        of(name, service, "127.0.0.1:20411".parse().expect("an address"))
    }

    #[test]
    fn a_database_is_reached_with_its_credentials() {
        let got = variables(
            "services: { my-db: { image: postgres, environment: { POSTGRES_PASSWORD: x, POSTGRES_USER: u } } }",
        );
        assert_eq!(got["MY_DB_URL"], "postgresql://u:x@127.0.0.1:20411/u");
        assert_eq!(got["MY_DB_PORT"], "20411");
        assert_eq!(got["MY_DB_DATABASE"], "u");
        let got = variables("services: { cache: { image: \"redis:7\", command: [redis-server, --requirepass, x] } }");
        assert_eq!(got["CACHE_URL"], "redis://:x@127.0.0.1:20411/0");
        let got = variables("services: { web: { image: shop } }");
        assert_eq!(got["WEB_URL"], "http://127.0.0.1:20411");
    }
}
