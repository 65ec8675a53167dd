//! The first entry into a database whose data came from elsewhere: it gets the environment's own password, and only
//! then do its published ports lead to it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use domain::stack::{Service, StoreKind};

use super::failure::Failure;
use super::plan::Plan;
use super::{credentials, launch, lay};
use crate::host::Host;
use crate::seeds::postgres;
use crate::seeds::sealed::Login;

/// Pause before another attempt.
const RETRY: Duration = Duration::from_millis(250);

/// Makes the service's password the environment's own; ends when it is. Each failure is told.
pub async fn own(host: &Arc<Host>, plan: &Arc<Plan>, name: &str, address: IpAddr, mut failed: impl FnMut(String)) {
    let Some(service) = plan.stack.services.get(name) else { return };
    while let Some(login) = lay::login(host, plan, name) {
        let done = async {
            change(service, address, &login).await?;
            let kept = |why: std::io::Error| Failure::passing("E_POOL", why.to_string());
            lay::own_password(host, plan, name).map_err(kept)?;
            launch::lead_all(host, plan, name, address).await
        };
        match done.await {
            Ok(()) => return,
            Err(why) => {
                tracing::warn!(environment = %plan.id, service = name, %why, "the seed's password is not replaced yet");
                failed(format!("the seed's password is not replaced yet: {}", why.text));
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn change(service: &Service, address: IpAddr, login: &Login) -> Result<(), Failure> {
    let Some(password) = credentials::password(service) else { return Ok(()) };
    let port = |default| service.ports.first().or_else(|| service.expose.first()).copied().unwrap_or(default);
    match service.store {
        Some(StoreKind::Postgres) => {
            let wanted = service.environment.get("POSTGRES_USER").map_or("postgres", String::as_str);
            if wanted != login.user {
                return Err(Failure::lasting(
                    "E_SEED_MISMATCH",
                    format!(
                        "the seed's administrator is {}, the stack's {wanted}; write POSTGRES_USER: {}",
                        login.user, login.user
                    ),
                ));
            }
            let changed = postgres::change_password(address, port(5432), login, password).await;
            changed.map_err(|why| Failure::passing("E_SEED_LOGIN", why))
        }
        // Others take theirs from their command line or settings at each start.
        _ => Ok(()),
    }
}
