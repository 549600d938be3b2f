//! `moesync schema`: prints the JSON Schema of the configuration, for editors and generators.

use super::{CommandError, Completion, Result, shell::print};
use crate::config;

pub(super) fn run() -> Result {
    let text = serde_json::to_string_pretty(&config::schema())
        .map_err(|error| CommandError::Failed(format!("could not write the schema: {error}")))?;
    print(&format!("{text}\n"))?;
    Ok(Completion::Done)
}
