//! Running copies of stacks.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::authorize::{Action, Permit, Principal, Resource, authorize};
use domain::environment::{Environment, EnvironmentState, Observed, Source, Wanted, migration};
use domain::host::Liveness;
use domain::ids::{EnvironmentId, Generation, HostId};
use domain::name::Name;
use domain::seed::SeedAddress;
use domain::stack::{SeedRef, Stack};

use super::environment_data::{self, Beginning};
use super::idempotency::{self, Key};
use super::ledger::{self, Event};
use super::placing::{Wish, choose};
use super::{App, Ctx, apps, environment_life, quotas, resolve, seed_copies, text};
use crate::error::{Code, Error, Result};
use crate::store::environment::{EnvironmentRow, Life};
use crate::store::host::HostRow;
use crate::store::{Tx, View};

/// An environment with names, and, where the caller may see them, the connection variables of its services.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EnvironmentView {
    /// The environment.
    pub row: EnvironmentRow,
    /// Its owner's name.
    pub owner: String,
    /// Its host's name; the id where the host is gone.
    pub host: String,
    /// Its host is not heard from.
    pub unknown: bool,
    /// How far its seed is that is being brought to its host; none: it waits for none.
    pub waits: Option<String>,
    /// By service; empty for all but the owner and admins.
    pub variables: BTreeMap<String, BTreeMap<String, String>>,
}

/// What `env up` asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Up {
    /// Default: the app's name.
    pub name: String,
    /// The app the stack belongs to; may be empty.
    pub app: String,
    /// The stack file's text.
    pub stack_file: String,
    /// Its name for messages.
    pub file: String,
    /// Interpolation variables.
    pub variables: BTreeMap<String, String>,
    /// Texts of the files named by `env_file`.
    pub env_files: BTreeMap<String, String>,
    /// A grant of the agent's local socket; may be empty.
    pub grant: String,
    /// The host that gave it.
    pub grant_host: String,
    /// Place it on this host; may be empty.
    pub host: String,
    /// Begin with this seed or snapshot; empty: with what the stack says.
    pub from: String,
    /// What the stack uses of its folder is uploaded.
    pub upload: bool,
}

struct Checked<'a> {
    ask: &'a Up,
    name: Name,
    app: Option<Name>,
    memory: u64,
    disk: Option<u64>,
    ttl: Duration,
    seed: Option<SeedRef>,
    stack: Stack,
}

fn check(ask: &Up) -> Result<Checked<'_>> {
    let app = if ask.app.is_empty() { None } else { Some(Name::new("app", &ask.app)?) };
    let name = match (&ask.name[..], &app) {
        ("", Some(app)) => app.clone(),
        ("", None) => {
            return Err(Error::new(Code::FIELD, "an environment needs a name when its stack belongs to no app"));
        }
        (given, _) => Name::new("environment", given)?,
    };
    text::one_line("file", &ask.file, 255)?;
    text::one_line("grant", &ask.grant, 200)?;
    text::map_at_most("variables", &ask.variables, 1000, 256 << 10)?;
    text::map_at_most("env_files", &ask.env_files, 64, 1 << 20)?;
    if ask.grant.is_empty() != ask.grant_host.is_empty() {
        return Err(Error::new(Code::FIELD, "a grant and the host that gave it come together"));
    }
    if ask.upload && !ask.grant.is_empty() {
        return Err(Error::new(Code::FIELD, "a folder is either uploaded or mounted from its host"));
    }
    let file = if ask.file.is_empty() { "compose.yaml" } else { &ask.file };
    let files = |path: &str| ask.env_files.get(path).cloned();
    let input = manifest::stack::Input { file, text: &ask.stack_file, variables: &ask.variables, files: &files };
    let reading = manifest::stack::read(input).map_err(|problems| apps::problems_error(Code::STACK, &problems))?;
    let quota = reading.stack.settings.quota;
    let declared = reading.stack.services.values().filter_map(|service| service.memory).sum();
    let memory = quota.memory.unwrap_or(declared);
    let ttl = reading.stack.settings.ttl.0;
    let seed = reading.stack.settings.seed.clone();
    Ok(Checked { ask, name, app, memory, disk: quota.disk, ttl, seed, stack: reading.stack })
}

/// Makes an environment, or brings the owner's environment of that name to this stack.
///
/// # Errors
/// The request or its stack file is malformed, no host can take it, or the caller may not.
pub async fn up(app: &App, principal: &Principal, ask: &Up, key: Option<&Key>) -> Result<EnvironmentView> {
    let ask = environment_data::with_stack(app, principal, ask).await?;
    let checked = &check(&ask)?;
    let view = app
        .store
        .write(|tx| {
            Box::pin(async move {
                let resource = Resource::owned(&principal.project, principal.id, checked.app.as_ref());
                authorize(principal, Action::Create, &resource)?;
                if let Some(made) = idempotency::created(tx, principal, key).await? {
                    let row = resolve::environment(tx, principal, &made).await?;
                    return view_of(app, tx, principal, row).await;
                }
                // The app need not be known here: a developer comes before anybody has applied it.
                let before = tx.environment_by_name(&principal.project, principal.id, &checked.name).await?;
                let row = match before {
                    Some(row) => again(app, tx, principal, checked, row).await?,
                    None => first(app, tx, principal, checked).await?,
                };
                idempotency::note(app, tx, principal, key, row.environment.id).await?;
                view_of(app, tx, principal, row).await
            })
        })
        .await?;
    if let Some(seed) = view.row.data.seed {
        seed_copies::wake(app, seed).await?;
    }
    app.wake.host(view.row.environment.host);
    Ok(view)
}

fn source(ask: &Up) -> Source {
    match ask.grant.as_str() {
        _ if ask.upload => Source::Upload,
        "" => Source::None,
        grant => Source::Grant { grant: grant.to_owned() },
    }
}

async fn first(ctx: &App, tx: &mut dyn Tx, principal: &Principal, checked: &Checked<'_>) -> Result<EnvironmentRow> {
    let ask = checked.ask;
    quotas::one_more(ctx, tx, principal, checked.memory).await?;
    let seed = environment_data::beginning(tx, principal, &ask.from, checked.seed.as_ref()).await?;
    let wish = Wish {
        named: named_host(tx, principal, ask).await?,
        granted: !ask.grant.is_empty(),
        memory: checked.memory,
        seed: seed.as_ref(),
    };
    let host = choose(ctx, tx, principal, &wish).await?;
    if let Some(seed) = &seed {
        seed_copies::bring(ctx, tx, &seed.row, host.host.id).await?;
    }
    let environment = Environment {
        id: EnvironmentId::new(ctx.ids.uuid()),
        name: checked.name.clone(),
        owner: principal.id,
        app: checked.app.clone(),
        host: host.host.id,
        run: None,
        stack_file: ask.stack_file.clone(),
        variables: ask.variables.clone(),
        source: source(ask),
        generation: Generation(1),
        wanted: Wanted::Up,
        observed: Observed::nothing(),
        created_at: ctx.now(),
    };
    let mut row = EnvironmentRow {
        project: principal.project.clone(),
        environment,
        file: ask.file.clone(),
        env_files: ask.env_files.clone(),
        data: seed.as_ref().map(Beginning::data).unwrap_or_default(),
        gone_at: None,
        life: Life { ttl: Some(checked.ttl), ..Life::default() },
        version: 0,
    };
    let warm = slot(ctx, tx, &row).await?;
    row.environment.id = warm.unwrap_or(row.environment.id);
    row.version = tx.environment_put(&row).await?;
    let with = seed.map(|seed| format!(", with {}", seed.address)).unwrap_or_default();
    event(ctx, tx, principal, &row, "environment.up", &format!("on {}{with}", host.host.name)).await?;
    Ok(row)
}

/// A slot of the host's warm pool that is made from the same: its id becomes the environment's. If it is gone by then, the
/// host begins anew under that id.
async fn slot(ctx: &Ctx, tx: &mut dyn Tx, row: &EnvironmentRow) -> Result<Option<EnvironmentId>> {
    let key = manifest::identity::identity(&manifest::identity::Ingredients {
        file: &row.file,
        text: &row.environment.stack_file,
        variables: &row.environment.variables,
        files: &row.env_files,
        data: &row.data.from.to_string(),
    });
    for id in ctx.seen.slots(row.environment.host, &key) {
        // Handed out already, while its host has not told yet.
        if tx.environment_get(id).await?.is_none() {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

async fn again(
    app: &App,
    tx: &mut dyn Tx,
    principal: &Principal,
    checked: &Checked<'_>,
    mut row: EnvironmentRow,
) -> Result<EnvironmentRow> {
    let ask = checked.ask;
    if row.environment.run.is_some() {
        return Err(Error::new(Code::ENV_OF_RUN, format!("the environment {} belongs to a run", checked.name)));
    }
    let asked = named_host(tx, principal, ask).await?;
    if let Some(host) = asked
        && host.host.id != row.environment.host
    {
        let text = format!(
            "your environment {} is on another host; `muster env down {}` first, or give another --name",
            checked.name, checked.name
        );
        return Err(Error::new(Code::ENV_EXISTS, text));
    }
    other_data(tx, principal, ask, &row).await?;
    let environment = &mut row.environment;
    let same = environment.stack_file == ask.stack_file
        && environment.variables == ask.variables
        && row.env_files == ask.env_files
        && row.file == ask.file
        && environment.app == checked.app
        && environment.wanted == Wanted::Up
        && !matches!(
            environment.observed.state,
            EnvironmentState::Failed | EnvironmentState::Frozen | EnvironmentState::Asleep
        )
        && (source(ask) == Source::None || environment.source == source(ask));
    if same {
        return Ok(row);
    }
    quotas::its_own(&row, checked.disk)?;
    // A file that this version does not read any more cannot be compared: nothing is kept then.
    let before = environment_life::stack(&row).ok();
    let due = before.and_then(|before| migration::due(&before, &checked.stack));
    let kept = match due {
        Some(service) => environment_data::keep_before(app, tx, &mut row, service).await?,
        None => String::new(),
    };
    let environment = &mut row.environment;
    environment.stack_file.clone_from(&ask.stack_file);
    environment.variables.clone_from(&ask.variables);
    environment.app.clone_from(&checked.app);
    if source(ask) != Source::None {
        environment.source = source(ask);
    }
    environment.wanted = Wanted::Up;
    environment.generation = environment.generation.next();
    if let Some(seed) = seed_copies::waits(tx, &row).await?
        && let Some(seed) = tx.seed_get(seed.copy.seed).await?
    {
        seed_copies::bring(app, tx, &seed, row.environment.host).await?;
    }
    row.env_files.clone_from(&ask.env_files);
    row.file.clone_from(&ask.file);
    row.life.ttl = Some(checked.ttl);
    row.version = tx.environment_put(&row).await?;
    let text = format!("again, generation {}{kept}", row.environment.generation.0);
    event(app, tx, principal, &row, "environment.up", &text).await?;
    Ok(row)
}

pub(super) async fn event(
    ctx: &Ctx,
    tx: &mut dyn Tx,
    principal: &Principal,
    row: &EnvironmentRow,
    kind: &'static str,
    text: &str,
) -> Result<()> {
    Event::new(ledger::by(principal), kind, row.environment.id)
        .scope(row.environment.id)
        .text(format!("{} {text}", row.environment.name))
        .append(ctx, tx, &row.project)
        .await?;
    Ok(())
}

async fn named_host<V: View + ?Sized>(view: &mut V, principal: &Principal, ask: &Up) -> Result<Option<HostRow>> {
    let given = match (ask.grant_host.as_str(), ask.host.as_str()) {
        ("", "") => return Ok(None),
        ("", host) | (host, "") => host,
        (grant, host) => {
            let (grant, host) =
                (resolve::host(view, principal, grant).await?, resolve::host(view, principal, host).await?);
            if grant.host.id != host.host.id {
                return Err(Error::new(
                    Code::AMBIGUOUS,
                    "--host names another host than the one whose folder is to be mounted",
                ));
            }
            return Ok(Some(host));
        }
    };
    resolve::host(view, principal, given).await.map(Some)
}

/// An environment keeps its data: it does not begin again with something else.
async fn other_data(tx: &mut dyn Tx, principal: &Principal, ask: &Up, row: &EnvironmentRow) -> Result<()> {
    // The same command again, after a newer version has come.
    if let Some(SeedAddress::Seed(SeedRef { name, version: None })) = SeedAddress::parse(&ask.from)
        && row.data.address.split_once('@').is_some_and(|(began, _)| began == name.as_str())
    {
        return Ok(());
    }
    let asked = environment_data::beginning(tx, principal, &ask.from, None).await?;
    let Some(asked) = asked.filter(|asked| row.data.seed != Some(asked.row.seed.id)) else { return Ok(()) };
    let name = &row.environment.name;
    let began = if row.data.address.is_empty() { "empty volumes" } else { &row.data.address };
    let text = format!(
        "your environment {name} began with {began}, not {}; give another name, or `muster env down {name}` first",
        asked.address
    );
    Err(Error::new(Code::ENV_EXISTS, text))
}

/// Takes an environment down, with its data.
///
/// # Errors
/// There is none, it belongs to a run, or the caller may not.
pub async fn down(ctx: &App, principal: &Principal, given: &str) -> Result<EnvironmentView> {
    let view = ctx
        .store
        .write(|tx| {
            Box::pin(async move {
                let mut row = resolve::environment(tx, principal, given).await?;
                authorize(principal, Action::Write, &resource(&row))?;
                if row.environment.run.is_some() {
                    let text = "the environment belongs to a run, which removes it; `muster run cancel` ends the run";
                    return Err(Error::new(Code::ENV_OF_RUN, text));
                }
                if row.environment.wanted == Wanted::Up {
                    row.environment.wanted = Wanted::Down;
                    row.environment.generation = row.environment.generation.next();
                    row.version = tx.environment_put(&row).await?;
                    event(ctx, tx, principal, &row, "environment.down", "").await?;
                }
                view_of(ctx, tx, principal, row).await
            })
        })
        .await?;
    ctx.wake.host(view.row.environment.host);
    Ok(view)
}

/// What an environment is to [`authorize`].
#[must_use]
pub fn resource(row: &EnvironmentRow) -> Resource {
    Resource::owned(&row.project, row.environment.owner, row.environment.app.as_ref())
}

/// The caller's environments, or everybody's.
///
/// # Errors
/// What the store says.
pub async fn list(app: &App, principal: &Principal, all: bool) -> Result<Vec<EnvironmentView>> {
    let owner = (!all).then_some(principal.id);
    app.store
        .read(|view| {
            Box::pin(async move {
                let mut found = Vec::new();
                for row in view.environment_list(&principal.project, owner).await? {
                    if authorize(principal, Action::Read, &resource(&row)).is_ok() {
                        // Lists hold no credentials, not even one's own.
                        found.push(plain_view(app, view, row).await?);
                    }
                }
                Ok(found)
            })
        })
        .await
}

/// One environment; with credentials for its owner.
///
/// # Errors
/// There is none, or the caller may not see it.
pub async fn show(app: &App, principal: &Principal, given: &str) -> Result<EnvironmentView> {
    app.store
        .read(|view| {
            Box::pin(async move {
                let row = resolve::environment(view, principal, given).await?;
                view_of(app, view, principal, row).await
            })
        })
        .await
}

/// One environment whose logs the caller may read.
///
/// # Errors
/// There is none, or the caller may not read its logs.
pub async fn for_logs(app: &App, principal: &Principal, given: &str) -> Result<EnvironmentView> {
    app.store
        .read(|view| {
            Box::pin(async move {
                let row = resolve::environment(view, principal, given).await?;
                authorize(principal, Action::ReadSecret, &resource(&row))?;
                plain_view(app, view, row).await
            })
        })
        .await
}

pub(super) async fn plain_view<V: View + ?Sized>(
    ctx: &Ctx,
    view: &mut V,
    row: EnvironmentRow,
) -> Result<EnvironmentView> {
    let owner =
        view.principal_get(row.environment.owner).await?.map(|owner| owner.name.to_string()).unwrap_or_default();
    let host = view.host_get(row.environment.host).await?;
    let unknown = host.as_ref().is_none_or(|host| ctx.liveness(host) == Liveness::Unreachable);
    let host = host.map_or_else(|| row.environment.host.to_string(), |host| host.host.name.to_string());
    let waits = seed_copies::waiting(view, &row).await?;
    let unknown = unknown && row.gone_at.is_none();
    Ok(EnvironmentView { unknown, row, owner, host, waits, variables: BTreeMap::new() })
}

pub(super) async fn view_of<V: View + ?Sized>(
    app: &App,
    view: &mut V,
    principal: &Principal,
    row: EnvironmentRow,
) -> Result<EnvironmentView> {
    authorize(principal, Action::Read, &resource(&row))?;
    let permit = authorize(principal, Action::ReadSecret, &resource(&row));
    let mut plain = plain_view(app, view, row).await?;
    if let Ok(permit) = permit {
        plain.variables = credentials(app, view, plain.row.environment.id, &permit).await?;
    }
    Ok(plain)
}

/// The kind under which connection variables are sealed.
pub const SECRET: &str = "environment";

/// Connection variables by service, as the agent told them last.
async fn credentials<V: View + ?Sized>(
    app: &App,
    view: &mut V,
    id: EnvironmentId,
    permit: &Permit,
) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
    if permit.action() != Action::ReadSecret {
        return Err(Error::internal("credentials were asked for with another permit"));
    }
    let id = id.to_string();
    let Some(row) = view.secret_get(SECRET, &id).await? else { return Ok(BTreeMap::new()) };
    let plain = app.vault.open_sealed(SECRET, &id, &row.sealed).map_err(Error::internal)?;
    serde_json::from_slice(&plain).map_err(Error::internal)
}

/// The environments that a host should have, as its agent is ordered.
///
/// # Errors
/// What the store says.
pub async fn of_host<V: View + ?Sized>(view: &mut V, host: HostId) -> Result<Vec<(EnvironmentRow, String)>> {
    let mut all = Vec::new();
    for row in view.environment_list_of_host(host).await? {
        let owner = view.principal_get(row.environment.owner).await?.map(|owner| owner.name.to_string());
        all.push((row, owner.unwrap_or_default()));
    }
    Ok(all)
}
