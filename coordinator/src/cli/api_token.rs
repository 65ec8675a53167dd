//! `muster api-token`.

use std::process::ExitCode;

use clap::Subcommand;
use proto::v1;

use super::client::{Client, Key};
use super::error::Error;
use super::output::{Output, dash};
use super::time;

/// Verbs of `muster api-token`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make one; the secret is shown once
    Create {
        /// Who calls with it, for example `asha` or `jenkins`
        principal: String,
        /// viewer, developer, deployer or admin
        #[arg(long)]
        role: String,
        /// APP or APP/TARGET; default: the whole project
        #[arg(long, default_value = "")]
        scope: String,
        /// Until when it holds, at most 90d
        #[arg(long, default_value = "30d")]
        ttl: String,
        /// Print the secret only
        #[arg(long, short)]
        quiet: bool,
    },
    /// All, without their secrets
    List,
    /// Make one useless at once
    Revoke {
        /// Its id
        id: String,
    },
}

/// Carries out a verb.
///
/// # Errors
/// See [`Error`].
pub async fn run(command: Command, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let mut tokens = client.api_tokens();
    match command {
        Command::Create { principal, role, scope, ttl, quiet } => {
            let request = v1::CreateApiTokenRequest {
                principal: principal.clone(),
                role,
                scope,
                ttl_micros: time::parse("--ttl", &ttl)?,
                idempotency_key: Key::made(),
            };
            let made = tokens.create(request).await?.into_inner();
            output.show(&made, || {
                if !quiet {
                    output.line(&format!("api-token of {principal}, valid for {ttl}; it is shown this once:"));
                }
                output.line(&made.secret);
            })?;
        }
        Command::List => {
            let list = tokens.list(v1::ListApiTokensRequest {}).await?.into_inner();
            output.show(&list, || {
                let row = |token: &v1::ApiToken| {
                    let expires = if token.revoked { "revoked".to_owned() } else { time::stamp(token.expires_at) };
                    vec![
                        token.id.clone(),
                        token.principal.clone(),
                        token.role.clone(),
                        dash(token.scope.clone()),
                        expires,
                    ]
                };
                let rows: Vec<_> = list.tokens.iter().map(row).collect();
                output.table(&["ID", "PRINCIPAL", "ROLE", "SCOPE", "EXPIRES (UTC)"], &rows);
            })?;
        }
        Command::Revoke { id } => {
            let answer = tokens.revoke(v1::RevokeApiTokenRequest { id: id.clone() }).await?.into_inner();
            output.show(&answer, || output.line(&format!("{id}: revoked")))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
