//! `muster env`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use proto::v1;

use super::client::{Client, idempotency_key, resume};
use super::context::text;
use super::error::Error;
use super::output::{Output, dash};
use super::terminal::Block;
use super::{repository, time};

/// Verbs of `muster env`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Bring the stack up, or to what its file says now, and wait until it is ready
    Up(Up),
    /// Remove an environment with its data
    Down {
        /// NAME, OWNER/NAME or id; default: as `env up` names it here
        environment: Option<String>,
    },
    /// Environments of yours
    List {
        /// Also those of others
        #[arg(long, short)]
        all: bool,
    },
    /// One environment with its addresses
    Show {
        /// NAME, OWNER/NAME or id; default: as `env up` names it here
        environment: Option<String>,
        /// Print the connection variables with credentials, as `KEY=VALUE` lines
        #[arg(long)]
        variables: bool,
    },
    /// Logs of its services
    Logs {
        /// NAME, OWNER/NAME or id; default: as `env up` names it here
        environment: Option<String>,
        /// One service only
        #[arg(long, short)]
        service: Option<String>,
        /// Go on with what comes
        #[arg(long, short)]
        follow: bool,
        /// Last lines to begin with; 0: from the beginning
        #[arg(long, default_value_t = 100)]
        tail: u32,
    },
}

/// Flags of `muster env up`.
#[derive(Args, Debug)]
pub struct Up {
    /// Default: the app's name, or the folder's
    name: Option<String>,
    /// Default: the `stack` of muster.yaml, else compose.yaml in this folder
    #[arg(long, short)]
    file: Option<PathBuf>,
    /// Place it on this host
    #[arg(long, default_value = "")]
    host: String,
    /// Do not wait until it is ready
    #[arg(long)]
    detach: bool,
    /// A repeated call with the same key finds the first one's environment
    #[arg(long)]
    idempotency_key: Option<String>,
}

/// Carries out a verb.
///
/// # Errors
/// See [`Error`].
pub async fn run(command: Command, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let mut environments = client.environments();
    match command {
        Command::Up(up) => return self::up(up, client, output).await,
        Command::Down { environment } => {
            let environment = named(environment)?;
            let going = environments.down(v1::DownEnvironmentRequest { environment }).await?.into_inner();
            let gone = wait(client, output, &going.id, Wanted::Gone).await?;
            output.show(&gone, || output.line(&format!("{}/{}: gone, with its data", gone.owner, gone.name)))?;
        }
        Command::List { all } => {
            let list = environments.list(v1::ListEnvironmentsRequest { all }).await?.into_inner();
            output.show(&list, || print_list(&list.environments, output))?;
        }
        Command::Show { environment, variables } => {
            let environment = named(environment)?;
            let shown = environments.show(v1::ShowEnvironmentRequest { environment }).await?.into_inner();
            output.show(&shown, || print(&shown, variables, output))?;
        }
        Command::Logs { environment, service, follow, tail } => {
            let environment = named(environment)?;
            let service = service.unwrap_or_default();
            logs(client, output, v1::EnvironmentLogsRequest { environment, service, follow, tail }).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The stack file, and the folder and app it belongs to.
struct Stack {
    file: PathBuf,
    folder: PathBuf,
    app: String,
}

fn find_stack(given: Option<PathBuf>) -> Result<Stack, Error> {
    let manifest = repository::find_manifest();
    let app = manifest.as_deref().map(repository::read_manifest).transpose()?;
    let named = app.as_ref().and_then(|app| app.stack.clone());
    let beside = manifest.as_deref().and_then(Path::parent);
    let file = match (given, named, beside) {
        (Some(file), _, _) => file,
        (None, Some(stack), Some(folder)) => folder.join(stack),
        _ => ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"]
            .iter()
            .map(PathBuf::from)
            .find(|path| path.is_file())
            .ok_or_else(|| Error::usage("E_NO_STACK", "no compose.yaml here, and no muster.yaml that names one; use --file"))?,
    };
    let file = std::fs::canonicalize(&file).map_err(|why| Error::file(&file, &why))?;
    let folder = file.parent().map(Path::to_path_buf).unwrap_or_default();
    Ok(Stack { file, folder, app: app.map(|app| app.name.to_string()).unwrap_or_default() })
}

fn default_name(stack: &Stack) -> String {
    if !stack.app.is_empty() {
        return stack.app.clone();
    }
    let folder = stack.folder.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    folder.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

fn named(given: Option<String>) -> Result<String, Error> {
    match given {
        Some(name) => Ok(name),
        None => Ok(default_name(&find_stack(None)?)),
    }
}

async fn up(up: Up, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let stack = find_stack(up.file)?;
    let request = request(&stack, up.name, up.host, up.idempotency_key.as_ref())?;
    let begun = std::time::Instant::now();
    let environment = resume(async || Ok(client.environments().up(request.clone()).await?.into_inner())).await?;
    if up.detach {
        output.show(&environment, || output.line(&head(&environment)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let ready = wait(client, output, &environment.id, Wanted::Ready).await?;
    let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(0);
    if output.is_json() {
        output.json(&ready)?;
    } else if ready.state() == v1::EnvironmentState::Ready {
        output.line(&format!("ready in {}", time::duration(took)));
        output.line("");
        print_addresses(&ready, output);
    } else {
        print_failure(&ready);
    }
    Ok(if ready.state() == v1::EnvironmentState::Ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn request(
    stack: &Stack,
    name: Option<String>,
    host: String,
    key: Option<&String>,
) -> Result<v1::UpEnvironmentRequest, Error> {
    let stack_file = text(&stack.file)?;
    let file = stack.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let dotenv = stack.folder.join(".env");
    let dotenv = if dotenv.is_file() { Some(text(&dotenv)?) } else { None };
    let needs = manifest::stack::needs(&file, &stack_file).map_err(|problems| repository::problems_error(&problems))?;
    let mut variables: HashMap<String, String> = HashMap::new();
    if let Some(dotenv) = dotenv {
        variables.extend(manifest::dotenv::parse(&dotenv));
    }
    // As in Compose, the caller's own environment goes before `.env`; only names that the file uses leave this machine.
    for name in &needs.variables {
        if let Ok(value) = std::env::var(name) {
            variables.insert(name.clone(), value);
        }
    }
    variables.retain(|name, _| needs.variables.contains(name));
    let mut env_files = HashMap::new();
    for path in &needs.env_files {
        let full = stack.folder.join(path);
        if full.is_file() {
            env_files.insert(path.clone(), text(&full)?);
        }
    }
    let (grant, grant_host) = if needs.folder { grant(&stack.folder)? } else { (String::new(), String::new()) };
    Ok(v1::UpEnvironmentRequest {
        name: name.unwrap_or_else(|| default_name(stack)),
        app: stack.app.clone(),
        stack_file,
        file,
        variables,
        env_files,
        grant,
        grant_host,
        host,
        idempotency_key: idempotency_key(key),
    })
}

#[cfg(unix)]
fn grant(folder: &Path) -> Result<(String, String), Error> {
    let socket = super::local::socket().ok_or_else(|| {
        Error::usage(
            "E_NO_LOCAL_AGENT",
            "the stack mounts folders of this machine, and no agent runs here; run this on a host with an agent (its socket is named by MUSTER_AGENT_SOCKET)",
        )
    })?;
    let grant = super::local::grant(&socket, folder)?;
    Ok((grant.grant, grant.host_id))
}

#[cfg(not(unix))]
fn grant(_folder: &Path) -> Result<(String, String), Error> {
    Err(Error::usage("E_NO_LOCAL_AGENT", "the stack mounts folders of this machine; run this on the host itself"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Ready,
    Gone,
}

async fn wait(client: &Client, output: &Output, id: &str, wanted: Wanted) -> Result<v1::Environment, Error> {
    let mut block = Block::new(output);
    resume(async || {
        let request = v1::WatchEnvironmentRequest { environment: id.to_owned(), follow: false };
        let mut stream = client.environments().watch(request).await?.into_inner();
        while let Some(environment) = stream.message().await? {
            if !output.is_json() {
                block.draw(progress(&environment, wanted));
            }
            let state = environment.state();
            let ended = match wanted {
                Wanted::Ready => matches!(
                    state,
                    v1::EnvironmentState::Ready | v1::EnvironmentState::Failed | v1::EnvironmentState::Gone
                ),
                Wanted::Gone => state == v1::EnvironmentState::Gone,
            };
            if ended {
                return Ok(environment);
            }
        }
        Err(Error::Status(tonic::Status::unavailable("E_STREAM_ENDED: the coordinator ended the stream")))
    })
    .await
}

fn head(environment: &v1::Environment) -> String {
    let app = if environment.app.is_empty() { &environment.name } else { &environment.app };
    format!("{app} · environment {}/{} on {}", environment.owner, environment.name, environment.host)
}

fn service_state(state: v1::ServiceState) -> &'static str {
    match state {
        v1::ServiceState::Unspecified => "?",
        v1::ServiceState::Waiting => "waiting",
        v1::ServiceState::Pulling => "pulling",
        v1::ServiceState::Starting => "starting",
        v1::ServiceState::Ready => "ready",
        v1::ServiceState::Done => "done",
        v1::ServiceState::Exited => "exited",
        v1::ServiceState::CrashLoop => "crash loop",
    }
}

fn service_line(service: &v1::Service, width: usize) -> String {
    let ready = if service.ready_after_micros > 0 { time::duration(service.ready_after_micros) } else { String::new() };
    format!("  {:<width$}  {:<9} {ready:<7}  {}", service.name, service_state(service.state()), service.detail)
        .trim_end()
        .to_owned()
}

fn progress(environment: &v1::Environment, wanted: Wanted) -> Vec<String> {
    let mut lines = vec![head(environment)];
    if wanted == Wanted::Gone {
        lines.push(format!("  {}", state(environment)));
        return lines;
    }
    let width = environment.services.iter().map(|service| service.name.chars().count()).max().unwrap_or(0);
    lines.extend(environment.services.iter().map(|service| service_line(service, width)));
    lines.extend(environment.notices.iter().map(|notice| format!("  notice: {notice}")));
    if environment.services.is_empty() {
        let silent = if environment.unknown { ", which is not heard from" } else { "" };
        lines.push(format!("  waiting for {}{silent}", environment.host));
    }
    lines
}

fn state(environment: &v1::Environment) -> String {
    let word = match environment.state() {
        v1::EnvironmentState::Unspecified => "?",
        v1::EnvironmentState::Pending => "pending",
        v1::EnvironmentState::Starting => "starting",
        v1::EnvironmentState::Ready => "ready",
        v1::EnvironmentState::Failed => "failed",
        v1::EnvironmentState::Stopping => "stopping",
        v1::EnvironmentState::Gone => "gone",
    };
    if environment.unknown { format!("unknown (last: {word})") } else { word.to_owned() }
}

fn print_failure(environment: &v1::Environment) {
    for service in environment.services.iter().filter(|service| !service.last_lines.is_empty()) {
        eprintln!("  {}   {}; its last lines:", service.name, service.detail);
        for line in &service.last_lines {
            eprintln!("             {line}");
        }
    }
    if let Some(reason) = &environment.reason {
        eprintln!("{}: {}", reason.code, reason.text);
    }
    eprintln!("  `muster env logs {0}` shows more; `muster env down {0}` removes it", environment.name);
}

fn masked(value: &str, secret: &[&str]) -> String {
    secret.iter().filter(|secret| !secret.is_empty()).fold(value.to_owned(), |text, secret| text.replace(secret, "•••"))
}

fn print_addresses(environment: &v1::Environment, output: &Output) {
    for service in &environment.services {
        let secret: Vec<&str> = service
            .variables
            .iter()
            .filter(|(key, _)| key.ends_with("_PASSWORD"))
            .map(|(_, value)| value.as_str())
            .collect();
        let url = service.variables.iter().find(|(key, _)| key.ends_with("_URL")).map(|(_, url)| masked(url, &secret));
        let mut addresses: Vec<_> = service.addresses.iter().collect();
        addresses.sort();
        let shown = url.or_else(|| addresses.first().map(|(_, address)| (*address).clone()));
        if let Some(shown) = shown {
            output.line(&format!("  {:<10} {shown}", service.name));
        }
    }
    output.line(&format!("  {:<10} muster env show {1} --variables    muster env logs {1} -f", "more", environment.name));
}

fn print(environment: &v1::Environment, variables: bool, output: &Output) {
    if variables {
        let mut all: Vec<_> = environment.services.iter().flat_map(|service| &service.variables).collect();
        all.sort();
        for (key, value) in all {
            output.line(&format!("{key}={value}"));
        }
        return;
    }
    output.line(&head(environment));
    output.line(&format!("  {} since {} UTC, id {}", state(environment), time::stamp(environment.created_at), environment.id));
    for line in progress(environment, Wanted::Ready).iter().skip(1) {
        output.line(line);
    }
    if let Some(reason) = environment.reason.as_ref().filter(|reason| !reason.code.is_empty()) {
        output.line(&format!("  {}: {}", reason.code, reason.text));
    }
    output.line("");
    print_addresses(environment, output);
}

fn print_list(environments: &[v1::Environment], output: &Output) {
    let row = |environment: &v1::Environment| {
        vec![
            environment.name.clone(),
            environment.owner.clone(),
            environment.host.clone(),
            state(environment),
            environment.services.len().to_string(),
            time::ago(environment.created_at),
            dash(environment.app.clone()),
        ]
    };
    let rows: Vec<_> = environments.iter().map(row).collect();
    output.table(&["ENVIRONMENT", "OWNER", "HOST", "STATE", "SERVICES", "AGE", "APP"], &rows);
}

async fn logs(client: &Client, output: &Output, request: v1::EnvironmentLogsRequest) -> Result<(), Error> {
    let mut stream = client.environments().logs(request).await?.into_inner();
    let mut begun: HashMap<String, bool> = HashMap::new();
    while let Some(chunk) = stream.message().await? {
        if output.is_json() {
            output.json(&chunk)?;
            continue;
        }
        let inside = begun.entry(chunk.source.clone()).or_insert(false);
        let mut prefixed = Vec::with_capacity(chunk.data.len() + 64);
        for line in chunk.data.split_inclusive(|byte| *byte == b'\n') {
            if !*inside {
                prefixed.extend_from_slice(format!("{} | ", chunk.source).as_bytes());
            }
            prefixed.extend_from_slice(line);
            *inside = !line.ends_with(b"\n");
        }
        output.bytes(&prefixed);
    }
    Ok(())
}
