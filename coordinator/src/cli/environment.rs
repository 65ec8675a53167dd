//! `muster env`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use domain::time::parse_duration;
use proto::v1;

use super::client::{Client, Key, resume};
use super::environment_connect::{self, Format};
use super::environment_data::{self, Snapshot};
use super::environment_diff::{self, Diff};
use super::environment_logs;
use super::environment_view::{Wanted, head, kept_line, print, print_addresses, print_failure, print_list, waiting};
use super::environment_watch::{self, Watching};
use super::error::Error;
use super::output::Output;
use super::stack::{self, Chosen};
use super::stack_check::Check;
use super::sync::{self, Sync};
use super::terminal::Block;
use super::{time, tunnel};

/// Verbs of `muster env`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Bring the stack up, or to what its file says now, and wait until it is ready
    Up(Up),
    /// Tell all problems and notices of a stack file at once, without a server
    Check(Check),
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
        /// Those first that were not used for longest
        #[arg(long)]
        idle: bool,
    },
    /// Run a command in a service's container: `muster env exec web -- python manage.py shell`
    Exec {
        /// The service
        service: String,
        #[command(flatten)]
        of: Of,
        /// Program and arguments
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
    /// Open the right client of a service: psql, mysql, redis-cli, curl
    Connect {
        /// The service
        service: String,
        #[command(flatten)]
        of: Of,
        /// Further arguments of the client
        #[arg(last = true)]
        more: Vec<String>,
    },
    /// Print the connection variables with credentials
    Export {
        /// NAME, OWNER/NAME or id; default: as `env up` names it here
        environment: Option<String>,
        /// How they are written
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Open ports of this machine that lead to services, until it is interrupted
    Forward {
        /// Default: all published ones
        services: Vec<String>,
        #[command(flatten)]
        of: Of,
    },
    /// Keep an environment although nobody uses it
    Keep {
        /// NAME, OWNER/NAME or id; default: as `env up` names it here
        environment: Option<String>,
        /// For how long, from now: 30d, 12h; 0: as its `ttl` says
        #[arg(long = "for", value_name = "TIME", default_value = "30d", value_parser = parse_duration)]
        time: Duration,
    },
    /// Stop and start a service, or all, and wait until it is ready
    Restart {
        /// Default: all services
        service: Option<String>,
        #[command(flatten)]
        of: Of,
    },
    /// Build a service's image again, make its container anew, and wait until it is ready
    Rebuild {
        /// A service with `build` in the stack file
        service: String,
        #[command(flatten)]
        of: Of,
    },
    /// One environment with its addresses
    Show {
        /// NAME, OWNER/NAME or id; default: as `env up` names it here
        environment: Option<String>,
        /// Print the connection variables with credentials, as `KEY=VALUE` lines
        #[arg(long)]
        variables: bool,
    },
    /// Take all of its data at one instant, while it runs
    Snapshot(Snapshot),
    /// Bring its data back to what it began with; address and credentials stay
    Reset {
        /// NAME or id; default: as `env up` names it here
        environment: Option<String>,
    },
    /// Take the last reset back
    Undo {
        /// NAME or id; default: as `env up` names it here
        environment: Option<String>,
    },
    /// Upload what the stack uses of this folder, and keep the environment in step with it
    Sync(Sync),
    /// What changed in its data since it began: rows, documents and keys
    Diff(Diff),
    /// A second environment that begins with what this one has now
    Clone(environment_data::Clone),
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

/// Which environment a service belongs to.
#[derive(Args, Debug)]
pub struct Of {
    /// NAME, OWNER/NAME or id; default: as `env up` names it here
    #[arg(long, short = 'e', value_name = "NAME")]
    environment: Option<String>,
}

/// Flags of `muster env up`.
#[derive(Args, Debug)]
pub struct Up {
    /// Default: the app's name, or the folder's
    name: Option<String>,
    /// The same
    #[arg(long = "name", value_name = "NAME", conflicts_with = "name")]
    called: Option<String>,
    /// Begin with this seed or snapshot instead of what the stack says: NAME, NAME@VERSION, OWNER/NAME. A snapshot
    /// brings its own stack where there is no stack file
    #[arg(long, value_name = "SEED")]
    from: Option<String>,
    #[command(flatten)]
    chosen: Chosen,
    /// Place it on this host
    #[arg(long, default_value = "")]
    host: String,
    /// Upload what the stack uses of this folder, instead of having the host's own agent mount it; `muster env sync`
    /// keeps it in step
    #[arg(long)]
    sync: bool,
    /// Go on: build or restart services when what they are made of changes here, until interrupted
    #[arg(long, conflicts_with = "detach")]
    watch: bool,
    /// Do not wait until it is ready
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    key: Key,
}

/// Carries out a verb.
///
/// # Errors
/// See [`Error`].
pub async fn run(command: Command, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let mut environments = client.environments();
    match command {
        Command::Up(up) => return self::up(up, client, output).await,
        Command::Check(check) => return super::stack_check::run(&check, output),
        Command::Down { environment } => {
            let environment = named(environment)?;
            let going = environments.down(v1::DownEnvironmentRequest { environment }).await?.into_inner();
            let gone = wait(client, output, &going.id, Wanted::Gone).await?;
            output.show(&gone, || output.line(&format!("{}/{}: gone, with its data", gone.owner, gone.name)))?;
        }
        Command::Exec { service, of, argv } => {
            let environment = named(of.environment)?;
            let command = tunnel::Command { environment, service, argv, variables: Vec::new() };
            return tunnel::exec(client, command).await;
        }
        Command::Connect { service, of, more } => {
            let shown = shown(client, of.environment).await?;
            return environment_connect::connect(client, &shown, &service, &more).await;
        }
        Command::Export { environment, format } => {
            let shown = shown(client, environment).await?;
            let format = if output.is_json() { Format::Json } else { format };
            output.bytes(environment_connect::exported(&shown, format).as_bytes());
        }
        Command::Forward { services, of } => {
            let shown = shown(client, of.environment).await?;
            return environment_connect::forward(client, &shown, &services, output).await;
        }
        Command::Keep { environment, time } => {
            let environment = named(environment)?;
            let for_micros = proto::convert::micros(time);
            let kept = environments.keep(v1::KeepEnvironmentRequest { environment, for_micros }).await?.into_inner();
            output.show(&kept, || output.line(&kept_line(&kept)))?;
        }
        Command::Restart { service, of } => {
            let (environment, service) = (named(of.environment)?, service.unwrap_or_default());
            let asked = environments.restart(v1::RestartEnvironmentRequest { environment, service }).await?;
            return ready(client, output, &asked.into_inner().id, Instant::now()).await;
        }
        Command::Rebuild { service, of } => {
            let environment = named(of.environment)?;
            let asked = environments.rebuild(v1::RebuildEnvironmentRequest { environment, service }).await?;
            return ready(client, output, &asked.into_inner().id, Instant::now()).await;
        }
        Command::List { all, idle } => {
            let mut list = environments.list(v1::ListEnvironmentsRequest { all }).await?.into_inner();
            if idle {
                list.environments.sort_by_key(|environment| environment.last_used_at);
            }
            output.show(&list, || print_list(&list.environments, output))?;
        }
        Command::Show { environment, variables } => {
            let environment = named(environment)?;
            let shown = environments.show(v1::ShowEnvironmentRequest { environment }).await?.into_inner();
            output.show(&shown, || print(&shown, variables, output))?;
        }
        Command::Snapshot(ask) => return environment_data::snapshot(ask, client, output).await,
        Command::Reset { environment } => return environment_data::reset(environment, false, client, output).await,
        Command::Undo { environment } => return environment_data::reset(environment, true, client, output).await,
        Command::Sync(ask) => return sync::run(ask, client, output).await,
        Command::Diff(ask) => return environment_diff::run(ask, client, output).await,
        Command::Clone(ask) => return environment_data::clone(ask, client, output).await,
        Command::Logs { environment, service, follow, tail } => {
            let environment = named(environment)?;
            let service = service.unwrap_or_default();
            let since = Vec::new();
            let request = v1::EnvironmentLogsRequest { environment, service, follow, tail, since };
            environment_logs::run(client, output, request).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn shown(client: &Client, given: Option<String>) -> Result<v1::Environment, Error> {
    let environment = named(given)?;
    Ok(client.environments().show(v1::ShowEnvironmentRequest { environment }).await?.into_inner())
}

pub(super) fn named(given: Option<String>) -> Result<String, Error> {
    match given {
        Some(name) => Ok(name),
        None => Ok(stack::find(&Chosen::default())?.default_name()),
    }
}

async fn up(up: Up, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let found = stack::find(&up.chosen);
    let mut folder = None;
    let watched = match &found {
        Ok(found) if up.watch => Some((found.clone(), found.read()?.stack)),
        _ => None,
    };
    let mut request = match (found, &up.from) {
        (Ok(found), _) if up.sync => {
            folder = Some(sync::Folder::open(found.folder(), &found.used()?)?);
            v1::UpEnvironmentRequest { upload: true, ..found.read()?.request }
        }
        // The coordinator takes the stack of the snapshot.
        (Err(Error::Usage { code: "E_NO_STACK", .. }), Some(from)) => v1::UpEnvironmentRequest {
            name: from.rsplit('/').next().unwrap_or_default().to_owned(),
            ..v1::UpEnvironmentRequest::default()
        },
        (found, _) => found?.request()?,
    };
    request.name = up.name.or(up.called).unwrap_or(request.name);
    request.from = up.from.unwrap_or_default();
    request.host = up.host;
    request.idempotency_key = up.key.or_made();
    let begun = Instant::now();
    let environment = resume(async || Ok(client.environments().up(request.clone()).await?.into_inner())).await?;
    if let Some(folder) = &mut folder {
        // Services wait for what they mount.
        folder.once(client, &environment.id, output).await?;
        if !up.watch {
            folder.close().await;
        }
    }
    if up.detach {
        output.show(&environment, || output.line(&head(&environment)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let code = ready(client, output, &environment.id, begun).await?;
    let Some((found, stack)) = watched else { return Ok(code) };
    let mut used = found.used()?;
    used.extend(environment_watch::named(&stack));
    let scanner = sync::Scanner::new(found.folder(), &used);
    let watching = Watching { environment: &environment.id, stack: &stack, scanner, folder };
    environment_watch::run(watching, client, output).await
}

/// Waits until it is ready, and says where it is reached, or what went wrong.
pub(super) async fn ready(client: &Client, output: &Output, id: &str, begun: Instant) -> Result<ExitCode, Error> {
    let ready = wait(client, output, id, Wanted::Ready).await?;
    let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(0);
    if output.is_json() {
        output.json(&ready)?;
    } else if is_up(&ready) {
        output.line(&format!("ready in {}", time::duration(took)));
        output.line("");
        print_addresses(&ready, output);
    } else {
        print_failure(&ready);
    }
    Ok(if is_up(&ready) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Ready; or it was, and nobody used it since.
pub(super) fn is_up(environment: &v1::Environment) -> bool {
    use v1::EnvironmentState::{Asleep, Frozen, Ready};
    matches!(environment.state(), Ready | Frozen | Asleep)
}

pub(super) async fn wait(client: &Client, output: &Output, id: &str, wanted: Wanted) -> Result<v1::Environment, Error> {
    let mut block = Block::new(output);
    resume(async || {
        let request = v1::WatchEnvironmentRequest { environment: id.to_owned(), follow: false };
        let mut stream = client.environments().watch(request).await?.into_inner();
        while let Some(environment) = stream.message().await? {
            if !output.is_json() {
                block.draw(waiting(&environment, wanted));
            }
            let state = environment.state();
            let ended = match wanted {
                Wanted::Ready => {
                    is_up(&environment) || matches!(state, v1::EnvironmentState::Failed | v1::EnvironmentState::Gone)
                }
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
