//! `muster login`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Global;
use super::client::Client;
use super::context::{self, Context};
use super::error::Error;
use super::output::{Output, dash};

/// Flags of `muster login`; address, CA and token come from the global flags.
#[derive(Args, Debug)]
pub struct Login {
    /// Keep the context although the coordinator does not answer now
    #[arg(long)]
    offline: bool,
    /// Where the context is kept
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
}

/// Keeps the context after a first call went through.
///
/// # Errors
/// Something is missing or wrong, or the coordinator does not answer.
pub async fn run(login: Login, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let context: Context = context::load(global)?;
    let path = match login.into {
        Some(path) => path,
        None => context::path(global)?,
    };
    if login.offline {
        context::save(&path, &context)?;
        output.line(&format!("kept in {} without a call to {}", path.display(), context.server));
        return Ok(ExitCode::SUCCESS);
    }
    let client = Client::connect(global).await?;
    let me = client.api_tokens().who_am_i(proto::v1::Empty {}).await?.into_inner();
    context::save(&path, &context)?;
    output.show(&me, || {
        let scope = dash(me.scope.clone());
        output.line(&format!(
            "{} at {}: role {}, scope {scope}; kept in {}",
            me.principal,
            context.server,
            me.role,
            path.display()
        ));
    })?;
    Ok(ExitCode::SUCCESS)
}
