//! Everything before the command: the commit's files, a fresh environment, and from both the job's spec.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::app::{App, TestSpec};
use domain::environment::{EnvironmentState, Observed, ServiceState};
use domain::name::Name;
use domain::release::{Commit, Image};
use domain::stack::Stack;
use manifest::git::{GitUrl, LocalPaths};
use proto::v1;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use uuid::Uuid;

use super::record::{Folder, Record};
use super::{Shared, container};
use crate::environments::failure::Failure;
use crate::environments::{View, Wanted, folder};
use crate::job::{Spec, Work};
use crate::junit::Pattern;

/// The app's file at the root of its repository.
const APP_FILE: &str = "muster.yaml";
/// Largest file of the checkout that is read as text.
const MAX_FILE: u64 = 1 << 20;
/// Limit for an environment to become ready: it may have images to fetch and build.
const READY: Duration = Duration::from_mins(30);
/// Between TERM and KILL.
const GRACE_MS: u64 = 10_000;

/// The parts of a run that its files name.
struct Plan {
    tests: TestSpec,
    service: Name,
    stack_path: String,
    stack_text: String,
    stack: Stack,
    /// Files that the stack file refers to, by their path in it.
    files: BTreeMap<String, String>,
}

/// Prepares a run. On success the record says what the command's stage needs.
pub(super) async fn run(shared: &Shared, record: &mut Record, home: &Folder) -> Result<Spec, Failure> {
    tell(shared, record, format!("fetching {} from {}", short(&record.order.commit), record.order.repository));
    let subject = checkout(shared, record, home).await?;
    let plan = read(&record.order, &home.tree())?;
    tell(shared, record, format!("checked out {} {subject:?}", short(&record.order.commit)));
    let images = images(shared, record, &plan).await?;
    record.junit = plan.tests.junit.clone();
    record.limits = (plan.tests.timeout, plan.tests.no_output);
    let collect = match &record.junit {
        Some(pattern) => {
            let pattern = Pattern::parse(pattern).map_err(|why| Failure::lasting("E_RUN_REPORTS", why.to_string()))?;
            Some(pattern.prefix())
        }
        None => None,
    };
    record.order.seed = seed(shared, record, &plan).await?;
    let view = environment(shared, record, home, &plan, images).await?;
    let unknown = || Failure::lasting("E_RUN_SERVICE", format!("the stack has no service {}", plan.service));
    let service = view.specs.get(plan.service.as_str()).ok_or_else(unknown)?;
    let made = container::spec(container::Parts {
        order: &record.order,
        service,
        services: &view.observed.services,
        command: &plan.tests.command,
        collect,
        engine: &shared.setup.engine,
    });
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut spec = Spec::new(shared.setup.work(made));
    spec.timeout_ms = millis(plan.tests.timeout);
    spec.no_output_ms = millis(plan.tests.no_output);
    spec.grace_ms = GRACE_MS;
    Ok(spec)
}

fn tell(shared: &Shared, record: &Record, detail: String) {
    shared.tell(v1::RunReport {
        id: record.order.id.clone(),
        state: v1::RunState::Preparing.into(),
        detail,
        ..Default::default()
    });
}

fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

async fn checkout(shared: &Shared, record: &Record, home: &Folder) -> Result<String, Failure> {
    let order = &record.order;
    let commit = Commit::parse(&order.commit).map_err(|why| Failure::lasting("E_GIT_COMMIT", why.to_string()))?;
    // Whether a path of this machine is allowed is for the host's policy to say.
    let url = GitUrl::parse(&order.repository, LocalPaths::Allowed);
    let url = url.map_err(|why| Failure::lasting(why.code().as_str(), why.to_string()))?;
    shared.setup.host.policy.repository(&url)?;
    let done = shared.mirrors.checkout(&url, &commit, &home.tree()).await;
    done.map(|done| done.subject).map_err(|why| Failure::lasting(why.code(), why.to_string()))
}

fn read(order: &v1::RunOrder, tree: &Path) -> Result<Plan, Failure> {
    let text = text_of(tree, APP_FILE)?;
    let app = manifest::app::read(APP_FILE, &text).map_err(|problems| lines(&problems))?;
    let tests = tests(order, &app)?;
    let service = tests.service.clone().ok_or_else(|| {
        let text =
            format!("{APP_FILE}: tests {} name no service whose image they run in; write `service: NAME`", order.tests);
        Failure::lasting("E_RUN_SERVICE", text)
    })?;
    let stack_path = app.stack.ok_or_else(|| {
        Failure::lasting("E_RUN_STACK", format!("{APP_FILE} names no stack; write `stack: compose.yaml`"))
    })?;
    let stack_text = text_of(tree, &stack_path)?;
    let folder = stack_folder(tree, &stack_path);
    let files = RefCell::new(BTreeMap::new());
    let find = |path: &str| {
        let text = text_of(&folder, path).ok()?;
        files.borrow_mut().insert(path.to_owned(), text.clone());
        Some(text)
    };
    let empty = BTreeMap::new();
    let input = manifest::stack::Input { file: &stack_path, text: &stack_text, variables: &empty, files: &find };
    let stack = manifest::stack::read(input).map_err(|problems| lines(&problems))?.stack;
    Ok(Plan { tests, service, stack_path, stack_text, stack, files: files.into_inner() })
}

fn tests(order: &v1::RunOrder, app: &App) -> Result<TestSpec, Failure> {
    if app.name.as_str() != order.app {
        let text = format!("{APP_FILE} at {} is of the app {}, not {}", short(&order.commit), app.name, order.app);
        return Err(Failure::lasting("E_RUN_APP", text));
    }
    let found = app.tests.iter().find(|(name, _)| name.as_str() == order.tests);
    found.map(|(_, tests)| tests.clone()).ok_or_else(|| {
        let known: Vec<&str> = app.tests.keys().map(Name::as_str).collect();
        let text = format!(
            "{APP_FILE} at {} has no tests {}; it has: {}",
            short(&order.commit),
            order.tests,
            known.join(", ")
        );
        Failure::lasting("E_RUN_TESTS", text)
    })
}

fn lines(problems: &[manifest::Problem]) -> Failure {
    let code = problems.first().map_or("E_STACK_SYNTAX", |problem| problem.code.as_str());
    let lines: Vec<String> = problems.iter().take(20).map(ToString::to_string).collect();
    Failure::lasting(code, lines.join("\n"))
}

fn stack_folder(tree: &Path, stack_path: &str) -> PathBuf {
    Path::new(stack_path).parent().map_or_else(|| tree.to_owned(), |parent| tree.join(parent))
}

/// A text file of the checkout. Links inside of it may be followed, none out of it.
fn text_of(root: &Path, relative: &str) -> Result<String, Failure> {
    let failed =
        |why: String| Failure::lasting("E_RUN_FILE", format!("{relative} cannot be read in the checkout: {why}"));
    let folder = rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let folder = folder.map_err(|why| failed(why.to_string()))?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat2(folder, relative, flags, Mode::empty(), resolve);
    let file = std::fs::File::from(file.map_err(|why| failed(why.to_string()))?);
    if !file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_FILE) {
        return Err(failed("it is no file, or larger than 1 MiB".to_owned()));
    }
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).map_err(|why| failed(why.to_string()))?;
    Ok(text)
}

/// The build's image for every service that is made from the same source as the test's.
async fn images(shared: &Shared, record: &Record, plan: &Plan) -> Result<BTreeMap<String, String>, Failure> {
    let Some(image) = record.order.image.clone() else { return Ok(BTreeMap::new()) };
    tell(shared, record, "fetching the build's image".to_owned());
    let failed = |why: String| Failure::lasting("E_RUN_IMAGE", format!("the build's image: {why}"));
    let image = Image::try_from(image).map_err(|why| failed(why.to_string()))?;
    let ways = shared.setup.channel.clone();
    crate::image::stage(&shared.setup.host, &image, ways).await.map_err(|why| failed(why.to_string()))?;
    let name = crate::image::reference(&image).ok_or_else(|| failed("it has no name".to_owned()))?;
    let Some(own) = plan.stack.services.get(plan.service.as_str()) else { return Ok(BTreeMap::new()) };
    let alike = plan.stack.services.iter().filter(|(service, other)| {
        service.as_str() == plan.service.as_str()
            || (own.build.is_some() && other.build == own.build)
            || (own.image.is_some() && other.image == own.image)
    });
    Ok(alike.map(|(service, _)| (service.clone(), name.clone())).collect())
}

/// What the environment begins with. The coordinator knows which version of the stack's seed that is, and has it brought
/// here.
async fn seed(shared: &Shared, record: &Record, plan: &Plan) -> Result<Option<v1::RunSeed>, Failure> {
    let Some(seed) = &plan.stack.settings.seed else { return Ok(None) };
    let ended = || Failure::lasting("E_RUN_SEED", format!("the run ended while it waited for the seed {seed}"));
    let mut said = shared.seed(&record.order.id).ok_or_else(ended)?;
    shared.tell(v1::RunReport {
        id: record.order.id.clone(),
        state: v1::RunState::Preparing.into(),
        detail: format!("waiting for the seed {seed}"),
        seed: seed.to_string(),
        ..Default::default()
    });
    let said = match tokio::time::timeout(READY, said.wait_for(Option::is_some)).await {
        Ok(Ok(said)) => said.clone().unwrap_or_default(),
        Ok(Err(_)) => return Err(ended()),
        Err(_) => {
            let text = format!("the coordinator did not bring the seed {seed} here within {READY:?}");
            return Err(Failure::lasting("E_RUN_SEED", text));
        }
    };
    match &said.refused {
        Some(why) => Err(Failure::lasting(&why.code, why.text.clone())),
        None => Ok(Some(said)),
    }
}

async fn environment(
    shared: &Shared,
    record: &mut Record,
    home: &Folder,
    plan: &Plan,
    images: BTreeMap<String, String>,
) -> Result<View, Failure> {
    let passing = |why: std::io::Error| Failure::passing("E_RUN_FOLDER", why.to_string());
    let id = Uuid::now_v7().to_string();
    // Remembered before it exists: nothing of it can be forgotten.
    record.environment = Some(id.clone());
    home.write(record).map_err(passing)?;
    let sources = folder::describe(&stack_folder(&home.tree(), &plan.stack_path)).map_err(passing)?;
    let order = v1::EnvironmentOrder {
        id: id.clone(),
        generation: 1,
        up: true,
        name: container::name(&record.order.id).trim_start_matches("muster-").to_owned(),
        owner: record.order.owner.clone(),
        app: record.order.app.clone(),
        stack_file: plan.stack_text.clone(),
        file: plan.stack_path.clone(),
        env_files: plan.files.clone().into_iter().collect(),
        run: record.order.id.clone(),
        data_from: record.order.seed.as_ref().map(|seed| seed.data_from.clone()).unwrap_or_default(),
        seed: record.order.seed.as_ref().map(|seed| seed.address.clone()).unwrap_or_default(),
        ..Default::default()
    };
    let places = &shared.setup.places;
    places.up(Wanted { order, folder: Some(sources), images, halted: false }).await?;
    let gone = || Failure::lasting("E_RUN_ENVIRONMENT", "the environment is gone while it was being made");
    let mut seen = places.watch(&id).ok_or_else(gone)?;
    let ready = async {
        loop {
            let view = seen.borrow_and_update().clone();
            match view.observed.state {
                EnvironmentState::Ready if view.specs.contains_key(plan.service.as_str()) => return Ok(view),
                EnvironmentState::Failed => return Err(failure(view.observed)),
                EnvironmentState::Gone => return Err(gone()),
                _ => tell(shared, record, describe(&view.observed)),
            }
            seen.changed().await.map_err(|_| gone())?;
        }
    };
    let late = |_| Failure::lasting("E_RUN_ENVIRONMENT", format!("the environment was not ready within {READY:?}"));
    tokio::time::timeout(READY, ready).await.map_err(late)?
}

fn failure(observed: Observed) -> Failure {
    let (code, text) = observed.reason.unwrap_or_else(|| ("E_RUN_ENVIRONMENT".to_owned(), String::new()));
    Failure::lasting(&code, format!("the fresh environment: {text}"))
}

/// One line: what the environment waits for.
fn describe(observed: &Observed) -> String {
    let done = |state: ServiceState| matches!(state, ServiceState::Ready | ServiceState::Done);
    let waiting = observed.services.iter().filter(|service| !done(service.state));
    let names: Vec<&str> = waiting.map(|service| service.name.as_str()).collect();
    match (&observed.reason, names.as_slice()) {
        (Some((_, why)), _) => format!("fresh environment: {why}"),
        (None, []) => "fresh environment".to_owned(),
        (None, names) => format!("fresh environment: waiting for {}", names.join(", ")),
    }
}

impl super::Setup {
    /// What the job is to run.
    fn work(&self, made: crate::job::ContainerSpec) -> Work {
        match &self.substitute {
            Some(process) => Work::Process(process.clone()),
            None => Work::Container(Box::new(made)),
        }
    }
}
