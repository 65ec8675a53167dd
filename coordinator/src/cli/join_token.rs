//! `muster join-token`.

use std::process::ExitCode;

use clap::Subcommand;
use proto::v1;

use super::client::{Client, Key};
use super::error::Error;
use super::host::split_changes;
use super::output::{Output, dash, pairs};
use super::time;

/// Verbs of `muster join-token`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make one; the secret is shown once
    Create {
        /// Name that the host will have
        host: String,
        /// KEY=VALUE that the host will have
        #[arg(long = "label", short = 'l')]
        labels: Vec<String>,
        /// Until when it can be used, at most 24h
        #[arg(long, default_value = "10m")]
        ttl: String,
        /// Print the secret only
        #[arg(long, short)]
        quiet: bool,
    },
    /// All that are not gone
    List,
    /// Make one useless
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
    let mut tokens = client.join_tokens();
    match command {
        Command::Create { host, labels, ttl, quiet } => {
            let (set, unset) = split_changes(&labels)?;
            if !unset.is_empty() {
                return Err(Error::usage("E_USAGE", "--label takes KEY=VALUE"));
            }
            let request = v1::CreateJoinTokenRequest {
                host: host.clone(),
                labels: set,
                ttl_micros: time::parse("--ttl", &ttl)?,
                idempotency_key: Key::made(),
            };
            let made = tokens.create(request).await?.into_inner();
            output.show(&made, || {
                if !quiet {
                    output.line(&format!(
                        "{host} can join once within {ttl}; put this into the file named by join_token_file:"
                    ));
                }
                output.line(&made.secret);
            })?;
        }
        Command::List => {
            let list = tokens.list(v1::ListJoinTokensRequest {}).await?.into_inner();
            output.show(&list, || {
                let row = |token: &v1::JoinToken| {
                    vec![
                        token.id.clone(),
                        token.host.clone(),
                        pairs(&token.labels),
                        time::stamp(token.expires_at),
                        dash(token.used_by.clone()),
                    ]
                };
                let rows: Vec<_> = list.tokens.iter().map(row).collect();
                output.table(&["ID", "HOST", "LABELS", "EXPIRES (UTC)", "USED BY"], &rows);
            })?;
        }
        Command::Revoke { id } => {
            let answer = tokens.revoke(v1::RevokeJoinTokenRequest { id: id.clone() }).await?.into_inner();
            output.show(&answer, || output.line(&format!("{id}: revoked")))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
