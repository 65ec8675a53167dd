//! What lies sealed in the rows of environments: the stack with its variables and files, which can hold passwords.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::super::environment::EnvironmentRow;
use super::super::error::{Error, Result};
use crate::vault::Vault;

/// What seals; empty until the coordinator has opened its key file.
pub(crate) type Sealer = Arc<OnceLock<Arc<Vault>>>;

/// The kind under which it is sealed.
const KIND: &str = "environment stack";
const TABLE: &str = "environments";

#[derive(Serialize, Deserialize)]
struct Inputs {
    stack_file: String,
    variables: BTreeMap<String, String>,
    env_files: BTreeMap<String, String>,
}

fn vault(sealer: &Sealer) -> Result<&Vault> {
    let none = || Error::Unusable { what: "the key file was not opened before the store was used".to_owned() };
    sealer.get().map(AsRef::as_ref).ok_or_else(none)
}

/// Takes the secrets out of a row. Answers them sealed.
pub(super) fn seal(sealer: &Sealer, row: &mut EnvironmentRow) -> Result<Vec<u8>> {
    let key = row.environment.id.to_string();
    let inputs = Inputs {
        stack_file: std::mem::take(&mut row.environment.stack_file),
        variables: std::mem::take(&mut row.environment.variables),
        env_files: std::mem::take(&mut row.env_files),
    };
    let sealed = serde_json::to_vec(&inputs).map_err(|why| why.to_string());
    let sealed = match sealed {
        Ok(plain) => vault(sealer)?.seal(KIND, &key, &plain).map_err(|why| why.to_string()),
        Err(why) => Err(why),
    };
    sealed.map_err(|what| Error::Unstorable { table: TABLE, key, what })
}

/// Puts the secrets back into a row as it was read. One that has them plain was written by a binary before this one.
pub(super) fn open(sealer: &Sealer, mut row: EnvironmentRow, sealed: Option<Vec<u8>>) -> Result<EnvironmentRow> {
    let Some(sealed) = sealed.filter(|_| row.environment.stack_file.is_empty()) else { return Ok(row) };
    let key = row.environment.id.to_string();
    let plain = vault(sealer)?.open_sealed(KIND, &key, &sealed).map_err(|why| why.to_string());
    let inputs = plain.and_then(|plain| serde_json::from_slice::<Inputs>(&plain).map_err(|why| why.to_string()));
    let inputs = inputs.map_err(|what| Error::Corrupt { table: TABLE, key, what: format!("sealed: {what}") })?;
    row.environment.stack_file = inputs.stack_file;
    row.environment.variables = inputs.variables;
    row.env_files = inputs.env_files;
    Ok(row)
}
