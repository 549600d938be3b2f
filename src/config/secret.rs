//! Turns the place of a secret into the secret, each time it is read: a corrected key file takes effect without a restart.
//!
//! This file owns how secrets are read. It must not know what they open, and never shows one.

use std::{
    env::VarError,
    fs::{File, Metadata},
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use secrecy::{ExposeSecret as _, SecretString};

use super::{Problem, SecretSource};

/// No key is longer; a path given by mistake may lead to anything.
const LONGEST: u64 = 64 * 1024;

impl SecretSource {
    /// The secret as it is now, less a byte order mark and trailing line ends.
    ///
    /// # Errors
    /// When it is not there, empty, of several lines, not UTF-8, longer than 64 KiB, or in a file that every user may read although that
    /// is not allowed. Names the file or variable, never its content.
    pub fn resolve(&self) -> Result<SecretString, Problem> {
        match self {
            SecretSource::File { file, allow_world_readable } => {
                from_file(&file.path, *allow_world_readable).map_err(|problem| file.problem(problem))
            }
            SecretSource::Unset(problem) => Err(problem.clone()),
            SecretSource::Env { name, place } => {
                let what = format!("the environment variable {name}");
                let value = std::env::var(name).map_err(|error| match error {
                    VarError::NotPresent => {
                        Problem::new(format!("{place}: {what} is not set; it should hold a secret"))
                    }
                    VarError::NotUnicode(_) => Problem::new(format!("{place}: the secret in {what} is not UTF-8 text")),
                })?;
                trimmed(&value, &what).map_err(|problem| Problem::new(format!("{place}: {problem}")))
            }
            SecretSource::Value(secret) => trimmed(secret.expose_secret(), "the configuration"),
        }
    }

    /// What about the secret is most likely not meant, if it can be read: a key has neither spaces around it nor quotes.
    pub fn oddity(&self) -> Option<Problem> {
        let secret = self.resolve().ok()?;
        let secret = secret.expose_secret();
        let is_quoted = |quote: char| secret.len() > 1 && secret.starts_with(quote) && secret.ends_with(quote);
        let part = |found| format!("the secret has {found}, which is taken for a part of it; remove it if it is none");
        let what = if secret.trim() != secret {
            part("a space before or behind it")
        } else if is_quoted('"') || is_quoted('\'') {
            part("quotes around it")
        } else if secret.starts_with(PLACEHOLDER) {
            "the secret is the placeholder of an example; put MoEngage's key in its place".to_owned()
        } else {
            return None;
        };
        Some(match self {
            SecretSource::File { file, .. } => file.problem(what),
            SecretSource::Env { place, .. } => Problem::new(format!("{place}: {what}")),
            SecretSource::Unset(_) | SecretSource::Value(_) => Problem::new(what),
        })
    }

    /// Whether every user may read the secret although that is not allowed, as far as can be seen without reading it.
    pub fn readable_by_all(&self) -> Option<Problem> {
        let SecretSource::File { file, allow_world_readable } = self else { return None };
        let problem = too_open(&file.path, &file.path.metadata().ok()?, *allow_world_readable)?;
        Some(file.problem(problem))
    }
}

/// How the placeholders of our examples begin.
pub(super) const PLACEHOLDER: &str = "YOUR-";

/// Shorter tokens can be guessed by trying.
const SHORTEST_TOKEN: usize = 16;

/// The token in the file at `path`, under the rules of all secret files.
pub(super) fn token(path: &Path) -> Result<SecretString, Problem> {
    let token = from_file(path, false)?;
    match token.expose_secret().len() {
        SHORTEST_TOKEN.. => Ok(token),
        length => Err(Problem::new(format!(
            "the token in the file {} has {length} bytes, which can be guessed; make one of {SHORTEST_TOKEN} or more, for \
             example with `openssl rand -hex 32`",
            path.display()
        ))),
    }
}

/// What is wrong with a secret file's mode.
fn too_open(path: &Path, metadata: &Metadata, allow_world_readable: bool) -> Option<Problem> {
    let mode = metadata.permissions().mode();
    (mode & 0o004 != 0 && !allow_world_readable).then(|| {
        Problem::new(format!(
            "every user of this machine may read the secret file {} (mode {:04o}); run `chmod o-r` on it (or, for \
             a workspace's key or a notify target's, set allow_world_readable = true there)",
            path.display(),
            mode & 0o7777
        ))
    })
}

fn from_file(path: &Path, allow_world_readable: bool) -> Result<SecretString, Problem> {
    let shown = path.display();
    let unreadable = |error: io::Error| Problem::new(format!("cannot read the secret file {shown}: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    if let Some(problem) = too_open(path, &file.metadata().map_err(unreadable)?, allow_world_readable) {
        return Err(problem);
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LONGEST {
        return Err(Problem::new(format!("the secret file {shown} holds more than 64 KiB, so it is no key")));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| Problem::new(format!("the secret file {shown} is not UTF-8 text")))?;
    trimmed(&text, &format!("the file {shown}"))
}

fn trimmed(text: &str, what: &str) -> Result<SecretString, Problem> {
    // Some editors begin every UTF-8 file with a byte order mark.
    match text.strip_prefix('\u{feff}').unwrap_or(text).trim_end_matches(['\r', '\n']) {
        "" => Err(Problem::new(format!("the secret in {what} is empty"))),
        secret if secret.contains(['\r', '\n']) => {
            Err(Problem::new(format!("the secret in {what} has several lines; a key has one")))
        }
        secret if secret.contains('\0') => Err(Problem::new(format!(
            "the secret in {what} holds NUL characters, as UTF-16 text does; save it as UTF-8"
        ))),
        secret => Ok(secret.into()),
    }
}
