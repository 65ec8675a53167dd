//! Who may do what to what. Deny is the default.

use crate::ids::PrincipalId;
use crate::name::{Name, TargetRef};

/// A role; what each may do stands in [`authorize`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Role {
    /// Reads everything but credentials.
    Viewer,
    /// A viewer who has environments and runs of their own, and registers builds.
    Developer,
    /// A developer who rolls out, sets config and applies apps.
    Deployer,
    /// Everything.
    Admin,
}

impl Role {
    /// All roles, weakest first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Developer, Self::Deployer, Self::Admin];

    /// The role's name on the wire and the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Developer => "developer",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
        }
    }

    /// Reads a role's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// A role, limited to an app or a target where that makes sense.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The role.
    pub role: Role,
    /// Where it holds.
    pub scope: Scope,
}

/// Where a role holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The whole project.
    Project,
    /// One app.
    App(Name),
    /// One target of an app.
    Target(TargetRef),
}

/// Who acts, and with which grant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Principal {
    /// Its id.
    pub id: PrincipalId,
    /// Its name, for example `asha` or `jenkins`.
    pub name: Name,
    /// The project it acts in.
    pub project: String,
    /// What it may do.
    pub grant: Grant,
}

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Action {
    /// See a thing without its secrets.
    Read,
    /// See the credentials in it, its terminal, its logs.
    ReadSecret,
    /// Make one of one's own.
    Create,
    /// Change or remove it.
    Write,
    /// Roll out, pause, resume, cancel, revert, set config.
    Deploy,
    /// Hosts, tokens, principals.
    Administer,
}

/// What it is done to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resource {
    /// The project it belongs to.
    pub project: String,
    /// Whose it is, where that counts (environments, runs).
    pub owner: Option<PrincipalId>,
    /// The app it belongs to.
    pub app: Option<Name>,
    /// The target it belongs to.
    pub target: Option<Name>,
}

impl Resource {
    /// Something of the project as a whole.
    #[must_use]
    pub fn project(project: &str) -> Self {
        Self { project: project.to_owned(), owner: None, app: None, target: None }
    }

    /// Something of an app.
    #[must_use]
    pub fn app(project: &str, app: &Name) -> Self {
        Self { app: Some(app.clone()), ..Self::project(project) }
    }

    /// Something of a target.
    #[must_use]
    pub fn target(project: &str, target: &TargetRef) -> Self {
        Self { app: Some(target.app.clone()), target: Some(target.target.clone()), ..Self::project(project) }
    }

    /// Something that somebody owns.
    #[must_use]
    pub fn owned(project: &str, owner: PrincipalId, app: Option<&Name>) -> Self {
        Self { owner: Some(owner), app: app.cloned(), ..Self::project(project) }
    }
}

/// Proof that [`authorize`] said yes. Only that function makes one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Permit {
    principal: PrincipalId,
    action: Action,
}

impl Permit {
    /// Who was permitted.
    #[must_use]
    pub fn principal(&self) -> PrincipalId {
        self.principal
    }

    /// What was permitted.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Another project: not even its existence is told.
    #[error("not found")]
    OtherProject,
    /// The grant holds elsewhere.
    #[error("the token's role {role} holds for {scope} only")]
    OutOfScope {
        /// The role.
        role: &'static str,
        /// Where it holds.
        scope: String,
    },
    /// It is somebody else's.
    #[error("it belongs to somebody else; its owner or an admin can do this")]
    NotOwner,
    /// The role is too weak.
    #[error("needs the role {needs}, the token has {role}")]
    Role {
        /// The role it needs.
        needs: &'static str,
        /// The token's role.
        role: &'static str,
    },
}

/// Decides on project, scope, role and owner, in this order.
///
/// # Errors
/// Says why not.
pub fn authorize(principal: &Principal, action: Action, resource: &Resource) -> Result<Permit, Denied> {
    if principal.project != resource.project {
        return Err(Denied::OtherProject);
    }
    let role = principal.grant.role;
    in_scope(&principal.grant, action, resource)?;
    let needs = needed(action, resource);
    if role < needs {
        return Err(Denied::Role { needs: needs.as_str(), role: role.as_str() });
    }
    let private = matches!(action, Action::ReadSecret | Action::Write | Action::Create);
    if private && role != Role::Admin && resource.owner.is_some_and(|owner| owner != principal.id) {
        return Err(Denied::NotOwner);
    }
    Ok(Permit { principal: principal.id, action })
}

fn needed(action: Action, resource: &Resource) -> Role {
    match action {
        Action::Read => Role::Viewer,
        Action::ReadSecret | Action::Create => Role::Developer,
        Action::Write if resource.owner.is_some() => Role::Developer,
        Action::Write | Action::Deploy => Role::Deployer,
        Action::Administer => Role::Admin,
    }
}

fn in_scope(grant: &Grant, action: Action, resource: &Resource) -> Result<(), Denied> {
    let inside = match &grant.scope {
        Scope::Project => true,
        // Reading what belongs to the whole project (hosts, the list of apps) is harmless and needed by every client.
        Scope::App(app) => resource.app.as_ref().map_or(action == Action::Read, |of| of == app),
        Scope::Target(target) => match (&resource.app, &resource.target) {
            (None, _) => action == Action::Read,
            (Some(app), None) => *app == target.app && action == Action::Read,
            (Some(app), Some(of)) => *app == target.app && *of == target.target,
        },
    };
    if inside {
        return Ok(());
    }
    let scope = match &grant.scope {
        Scope::Project => "the project".to_owned(),
        Scope::App(app) => format!("app {app}"),
        Scope::Target(target) => format!("target {target}"),
    };
    Err(Denied::OutOfScope { role: grant.role.as_str(), scope })
}
