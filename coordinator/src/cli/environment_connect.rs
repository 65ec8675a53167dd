//! Reaching what runs in an environment: `connect`, `export`, `forward`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::ValueEnum;
use proto::v1;
use tokio::net::TcpListener;

use super::client::Client;
use super::error::Error;
use super::output::Output;
use super::tunnel;

/// How variables are printed.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// `export KEY='value'`, for `eval "$(muster env export)"`
    #[default]
    Shell,
    /// `KEY=value`, for a `.env` file
    Env,
    /// One object
    Json,
}

/// The variables of all services in a form that programs read.
pub fn exported(environment: &v1::Environment, format: Format) -> String {
    let all: BTreeMap<&String, &String> = environment.services.iter().flat_map(|service| &service.variables).collect();
    match format {
        Format::Shell => {
            all.iter().map(|(key, value)| format!("export {key}='{}'\n", value.replace('\'', "'\\''"))).collect()
        }
        Format::Env => all.iter().map(|(key, value)| format!("{key}={}\n", quoted(value))).collect(),
        Format::Json => serde_json::to_string_pretty(&all).map(|text| format!("{text}\n")).unwrap_or_default(),
    }
}

/// Quoted where a reader of `.env` files would cut it otherwise.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=?&".contains(c);
    if value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$"))
    }
}

/// A program that speaks a service's protocol.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// Program and arguments; no secret among them.
    argv: Vec<String>,
    /// Its variables, where the password is.
    variables: Vec<(String, String)>,
}

/// The client of a service, as it is reached at `at`; inside the container without one.
pub fn program(service: &v1::Service, at: Option<SocketAddr>) -> Option<Program> {
    let get = |end: &str| {
        let found = service.variables.iter().find(|(key, _)| key.ends_with(end));
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let (user, password, database) = (get("_USER"), get("_PASSWORD"), get("_DATABASE"));
    let scheme = get("_URL").split("://").next().unwrap_or_default().to_owned();
    let host = at.map(|at| at.ip().to_string()).unwrap_or_default();
    let port = at.map(|at| at.port().to_string()).unwrap_or_default();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let reached = |program: &[&str], flags: &[&str]| {
        let mut argv = words(program);
        if at.is_some() {
            argv.extend(flags.iter().zip([&host, &port]).flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]));
        }
        argv
    };
    let secret = |name: &str| vec![(name.to_owned(), password.clone())];
    Some(match scheme.as_str() {
        "postgresql" => {
            let mut argv = reached(&["psql"], &["-h", "-p"]);
            argv.extend(words(&["-U", &user, "-d", &database]));
            Program { argv, variables: secret("PGPASSWORD") }
        }
        "mysql" => {
            let mut argv = reached(&["mysql"], &["-h", "-P"]);
            argv.extend(words(&["-u", &user]));
            if !database.is_empty() {
                argv.push(database);
            }
            Program { argv, variables: secret("MYSQL_PWD") }
        }
        "redis" => {
            let variables = if password.is_empty() { Vec::new() } else { secret("REDISCLI_AUTH") };
            Program { argv: reached(&["redis-cli"], &["-h", "-p"]), variables }
        }
        "http" => {
            let at = at?;
            Program { argv: words(&["curl", "-sS", "-i", &format!("http://{at}/")]), variables: Vec::new() }
        }
        _ => return None,
    })
}

fn service<'a>(environment: &'a v1::Environment, name: &str) -> Result<&'a v1::Service, Error> {
    environment.services.iter().find(|service| service.name == name).ok_or_else(|| {
        let names: Vec<&str> = environment.services.iter().map(|service| service.name.as_str()).collect();
        let text = format!("{} has no service {name}; it has {}", environment.name, names.join(", "));
        Error::usage("E_ENV_SERVICE", text)
    })
}

/// The service's first published port, by container port, and where it is reached on its host.
fn first_port(service: &v1::Service) -> Option<(u16, SocketAddr)> {
    let mut all: Vec<_> = service.addresses.iter().collect();
    all.sort();
    all.into_iter().find_map(|(port, address)| Some((u16::try_from(*port).ok()?, address.parse().ok()?)))
}

/// Opens the right client: of this machine, or inside the container when there is none.
///
/// # Errors
/// There is no such service, or nothing that speaks to it.
pub async fn connect(
    client: &Client,
    environment: &v1::Environment,
    name: &str,
    more: &[String],
) -> Result<ExitCode, Error> {
    let service = service(environment, name)?;
    if let Some((port, _)) = first_port(service) {
        // Through the coordinator, so that it is the same from the box and from a laptop.
        let listener = listen(0).await?;
        let at = listener.local_addr().map_err(|why| Error::usage("E_FORWARD", why.to_string()))?;
        if let Some(program) = program(service, Some(at)) {
            let mut command = tokio::process::Command::new(&program.argv[0]);
            command.args(&program.argv[1..]).args(more).envs(program.variables);
            match command.spawn() {
                Ok(mut child) => {
                    let forwarding = accept(client.clone(), listener, environment.id.clone(), name.to_owned(), port);
                    let status = tokio::select! {
                        status = child.wait() => status.map_err(|why| Error::usage("E_CONNECT", why.to_string()))?,
                        () = forwarding => return Err(Error::usage("E_FORWARD", "no connection is taken any more")),
                    };
                    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
                    return Ok(ExitCode::from(code));
                }
                Err(why) if why.kind() == std::io::ErrorKind::NotFound => {}
                Err(why) => return Err(Error::usage("E_CONNECT", format!("{}: {why}", program.argv[0]))),
            }
        }
    }
    let Some(mut program) = program(service, None) else {
        let text = format!("nothing is known that speaks to {name}; `muster env forward {name}` opens a port to it");
        return Err(Error::usage("E_CONNECT", text));
    };
    program.argv.extend(more.iter().cloned());
    let (environment, service) = (environment.id.clone(), name.to_owned());
    let (argv, variables) = (program.argv, program.variables);
    tunnel::exec(client, tunnel::Command { environment, service, argv, variables }).await
}

async fn listen(port: u16) -> Result<TcpListener, Error> {
    let failed = |why: std::io::Error| Error::usage("E_FORWARD", format!("127.0.0.1:{port}: {why}"));
    TcpListener::bind(("127.0.0.1", port)).await.map_err(failed)
}

/// Carries each connection to the service, until it is dropped.
async fn accept(client: Client, listener: TcpListener, environment: String, service: String, port: u16) {
    let mut open = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => return,
            },
            Some(_) = open.join_next() => continue,
        };
        let _ = stream.set_nodelay(true);
        let (client, environment, service) = (client.clone(), environment.clone(), service.clone());
        open.spawn(async move {
            if let Err(why) = tunnel::forward(&client, &environment, &service, port, stream).await {
                eprintln!("{service}: {why}");
            }
        });
    }
}

/// Opens a port of this machine for each published port of the named services, or of all, until it is interrupted.
///
/// # Errors
/// There is no such service, or a port cannot be listened on.
pub async fn forward(
    client: &Client,
    environment: &v1::Environment,
    names: &[String],
    output: &Output,
) -> Result<ExitCode, Error> {
    for name in names {
        service(environment, name)?;
    }
    let wanted = |service: &&v1::Service| names.is_empty() || names.contains(&service.name);
    let mut tasks = tokio::task::JoinSet::new();
    for service in environment.services.iter().filter(wanted) {
        for (port, address) in &service.addresses {
            let Ok(port) = u16::try_from(*port) else { continue };
            let published = address.parse::<SocketAddr>().map_or(0, |address| address.port());
            // The same number as on the host, so that exported variables hold; another one if it is taken here.
            let listener = match listen(published).await {
                Ok(listener) => listener,
                Err(_) => listen(0).await?,
            };
            let at = listener.local_addr().map_err(|why| Error::usage("E_FORWARD", why.to_string()))?;
            output.line(&format!("{:<10} {at} -> {}:{port}", service.name, service.name));
            tasks.spawn(accept(client.clone(), listener, environment.id.clone(), service.name.clone(), port));
        }
    }
    if tasks.is_empty() {
        return Err(Error::usage("E_FORWARD", "nothing of that is published; `ports` in the stack file does that"));
    }
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
        _ = tasks.join_next() => Err(Error::usage("E_FORWARD", "no connection is taken any more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres() -> v1::Service {
        let variables = [
            ("DB_URL", "postgresql://u:it's@127.0.0.1:20411/d"),
            ("DB_USER", "u"),
            ("DB_PASSWORD", "it's"),
            ("DB_DATABASE", "d"),
        ];
        v1::Service {
            name: "db".to_owned(),
            variables: variables.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            addresses: [(5432, "127.0.0.1:20411".to_owned())].into(),
            ..v1::Service::default()
        }
    }

    #[test]
    fn a_password_is_never_an_argument() {
        let at: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let program = program(&postgres(), Some(at)).unwrap();
        assert_eq!(program.argv, ["psql", "-h", "127.0.0.1", "-p", "9", "-U", "u", "-d", "d"]);
        assert_eq!(program.variables, [("PGPASSWORD".to_owned(), "it's".to_owned())]);
        let inside = super::program(&postgres(), None).unwrap();
        assert_eq!(inside.argv, ["psql", "-U", "u", "-d", "d"]);
    }

    #[test]
    fn variables_are_quoted_for_who_reads_them() {
        let environment = v1::Environment { services: vec![postgres()], ..v1::Environment::default() };
        let shell = exported(&environment, Format::Shell);
        assert!(shell.contains("export DB_PASSWORD='it'\\''s'\n"), "{shell}");
        let env = exported(&environment, Format::Env);
        assert!(env.contains("DB_PASSWORD=\"it's\"\n") && env.contains("DB_USER=u\n"), "{env}");
        let json: serde_json::Value = serde_json::from_str(&exported(&environment, Format::Json)).unwrap();
        assert_eq!(json["DB_PASSWORD"], "it's");
    }
}
