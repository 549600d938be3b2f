//! Secrets: the keys that give one, and reading it. A secret is read at each use, so a corrected key file takes
//! effect without a restart. No message contains one.

use std::{
    env::VarError,
    fs::{File, Metadata},
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer};

use super::{
    Problem, command,
    document::KeyPath,
    files::NamedFile,
    variables::{Env, Unexpanded, expand},
};

/// No key is longer; a path given by mistake may lead to a file of any size.
const LONGEST: u64 = 64 * 1024;

/// A secret in the file itself. `Debug` does not show it.
#[derive(Debug)]
pub(super) struct Raw(pub(super) SecretString);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Raw(text.into()))
    }
}

impl JsonSchema for Raw {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "writeOnly": true })
    }
}

/// The keys by which a table can give one secret: `NAME_file`, `NAME_env`, `NAME_command`, `NAME`.
pub(super) struct Given<'a> {
    name: &'static str,
    file: Option<&'a str>,
    env: Option<&'a str>,
    command: Option<&'a [String]>,
    value: Option<&'a SecretString>,
}

impl<'a> Given<'a> {
    pub(super) fn new(
        name: &'static str,
        file: &'a Option<String>,
        env: &'a Option<String>,
        value: &'a Option<Raw>,
    ) -> Self {
        Given {
            name,
            file: file.as_deref(),
            env: env.as_deref(),
            command: None,
            value: value.as_ref().map(|raw| &raw.0),
        }
    }

    /// Where the secret can also be printed by a command.
    pub(super) fn or_command(self, command: &'a Option<Vec<String>>) -> Self {
        Given { command: command.as_deref(), ..self }
    }

    /// Where the secret is read from; `None` if no key is given.
    pub(super) fn check(
        &self,
        allow_world_readable: bool,
        at: &KeyPath<'_>,
        env: &Env,
    ) -> Result<Option<SecretSource>, Problem> {
        let name = self.name;
        let [file_key, env_key, command_key] = ["file", "env", "command"].map(|end| format!("{name}_{end}"));
        let source = match (self.file, self.env, self.command, self.value) {
            (None, None, None, None) => return Ok(None),
            (Some(path), None, None, None) => {
                let at = at.key(file_key.clone());
                match expand(path, &at, env) {
                    // Under systemd only the service has ${CREDENTIALS_DIRECTORY}; commands that need no key work
                    // without it.
                    Err(Unexpanded::Unset(problem)) => SecretSource::Unset(problem),
                    path => SecretSource::File { file: NamedFile::at(path?, &at)?, allow_world_readable },
                }
            }
            (None, Some(variable), None, None) => {
                let at = at.key(env_key.clone());
                let is_name = !variable.is_empty()
                    && !variable.starts_with(|c: char| c.is_ascii_digit())
                    && variable.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                if !is_name {
                    // Not shown: it may be the secret itself, put here by mistake.
                    let rule = "expected the name of an environment variable: letters, digits and \"_\"";
                    return Err(at.problem(rule));
                }
                SecretSource::Env { name: variable.to_owned(), place: at.shown() }
            }
            (None, None, Some(words), None) => {
                let at = at.key(command_key.clone());
                let words = words.iter().enumerate().map(|(index, word)| expand(word, &at.index(index), env));
                match words.collect::<Result<Vec<_>, _>>() {
                    Err(Unexpanded::Unset(problem)) => SecretSource::Unset(problem),
                    words => command_of(words?, &at)?,
                }
            }
            (None, None, None, Some(secret)) => {
                let at = at.key(name);
                match expand(secret.expose_secret(), &at, env) {
                    Err(Unexpanded::Unset(problem)) => SecretSource::Unset(problem),
                    Ok(secret) if secret.trim().is_empty() => return Err(at.problem("must not be empty")),
                    secret => SecretSource::Value(secret?.into()),
                }
            }
            (file, env, command, value) => {
                let given = [
                    (file_key.as_str(), file.is_some()),
                    (&env_key, env.is_some()),
                    (&command_key, command.is_some()),
                    (name, value.is_some()),
                ];
                let given: Vec<_> = given.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect();
                let last = given.last().copied().unwrap_or(name);
                let rule = format!("only one of {} may be given; remove the others", given.join(", "));
                return Err(at.key(last.to_owned()).problem(rule));
            }
        };
        Ok(Some(source))
    }
}

fn command_of(words: Vec<String>, at: &KeyPath<'_>) -> Result<SecretSource, Problem> {
    let mut words = words.into_iter();
    match words.next().filter(|program| !program.is_empty()) {
        Some(program) => {
            Ok(SecretSource::Command { program, arguments: words.map(SecretString::from).collect(), place: at.shown() })
        }
        None => Err(at.problem("expected a program and its arguments, such as [\"pass\", \"show\", \"moengage\"]")),
    }
}

/// Where a secret is read from. [`SecretSource::resolve`] reads it, only when a request needs it.
#[derive(Debug, Clone)]
pub enum SecretSource {
    /// The file's text, without a byte order mark and trailing line ends.
    File {
        /// The file.
        file: NamedFile,
        /// Whether a file that every user may read is accepted.
        allow_world_readable: bool,
    },
    /// A path, command or text with an environment variable that is not set here.
    Unset(Problem),
    /// An environment variable's value.
    Env {
        /// The variable.
        name: String,
        /// Its key and line in the configuration, for error messages.
        place: String,
    },
    /// What a command writes to its standard output, under the rules of a file.
    Command {
        /// The program; without a slash it is searched in `PATH`.
        program: String,
        /// Its arguments, which may contain a secret.
        arguments: Vec<SecretString>,
        /// Its key and line in the configuration, for error messages.
        place: String,
    },
    /// Written in the configuration itself.
    Value(SecretString),
}

impl SecretSource {
    /// The present secret, without a byte order mark and trailing line ends. It blocks: a command may take ten seconds.
    ///
    /// # Errors
    /// If it is missing, empty, of several lines, not UTF-8, longer than 64 KiB, in a file that every user may read
    /// although that is not allowed, or if its command fails. The error shows the file, variable or program, never the
    /// secret.
    pub fn resolve(&self) -> Result<SecretString, Problem> {
        match self {
            SecretSource::File { file, allow_world_readable } => {
                secret_in_file(&file.path, *allow_world_readable).map_err(|problem| file.problem(problem))
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
            SecretSource::Command { program, arguments, place } => {
                let arguments: Vec<_> = arguments.iter().map(|argument| argument.expose_secret()).collect();
                from_command(program, &arguments).map_err(|problem| Problem::new(format!("{place}: {problem}")))
            }
            SecretSource::Value(secret) => trimmed(secret.expose_secret(), "the configuration"),
        }
    }

    /// A warning if the secret is probably a mistake, such as a key with quotes or spaces around it.
    pub fn oddity(&self) -> Option<Problem> {
        let secret = self.resolve().ok()?;
        let secret = secret.expose_secret();
        let is_quoted = |quote: char| secret.len() > 1 && secret.starts_with(quote) && secret.ends_with(quote);
        let part = |found| {
            format!("the secret has {found}, which counts as part of it; remove it if it does not belong there")
        };
        let what = if secret.trim() != secret {
            part("a space before or behind it")
        } else if is_quoted('"') || is_quoted('\'') {
            part("quotes around it")
        } else if secret.starts_with(PLACEHOLDER) {
            "the secret is the placeholder of an example; replace it with MoEngage's key".to_owned()
        } else {
            return None;
        };
        Some(match self {
            SecretSource::File { file, .. } => file.problem(what),
            SecretSource::Env { place, .. } | SecretSource::Command { place, .. } => {
                Problem::new(format!("{place}: {what}"))
            }
            SecretSource::Unset(_) | SecretSource::Value(_) => Problem::new(what),
        })
    }

    /// A problem if every user may read the file although that is not allowed. Looks at the file's mode alone.
    pub fn readable_by_all(&self) -> Option<Problem> {
        let SecretSource::File { file, allow_world_readable } = self else { return None };
        let problem = too_open(&file.path, &file.path.metadata().ok()?, *allow_world_readable)?;
        Some(file.problem(problem))
    }
}

/// How placeholders in the examples begin.
pub(super) const PLACEHOLDER: &str = "YOUR-";

/// Shorter tokens can be guessed by trying.
const SHORTEST_TOKEN: usize = 16;

/// The token in the file at `path`, under the rules of all secret files.
pub(super) fn token(path: &Path) -> Result<SecretString, Problem> {
    let token = secret_in_file(path, false)?;
    match token.expose_secret().len() {
        SHORTEST_TOKEN.. => Ok(token),
        length => Err(Problem::new(format!(
            "the token in the file {} has {length} bytes, which can be guessed; make one of {SHORTEST_TOKEN} or more, for \
             example with `openssl rand -hex 32`",
            path.display()
        ))),
    }
}

/// A problem if every user may read the file, or if it is a folder.
fn too_open(path: &Path, metadata: &Metadata, allow_world_readable: bool) -> Option<Problem> {
    if metadata.is_dir() {
        return Some(Problem::new(format!("{} is a folder; name the file with the secret in it", path.display())));
    }
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

/// The secret in the file at `path`.
///
/// # Errors
///
/// It cannot be read, every user may read it although that is not allowed, or it is no single line of text.
pub fn secret_in_file(path: &Path, allow_world_readable: bool) -> Result<SecretString, Problem> {
    let shown = path.display();
    let unreadable = |error: io::Error| Problem::new(format!("cannot read the secret file {shown}: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    if let Some(problem) = too_open(path, &file.metadata().map_err(unreadable)?, allow_world_readable) {
        return Err(problem);
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LONGEST {
        return Err(Problem::new(format!("the secret file {shown} is larger than 64 KiB, so it is not a key")));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| Problem::new(format!("the secret file {shown} is not UTF-8 text")))?;
    trimmed(&text, &format!("the file {shown}"))
}

fn from_command(program: &str, arguments: &[&str]) -> Result<SecretString, Problem> {
    let bytes = command::output(program, arguments, LONGEST + 1, command::LONGEST).map_err(Problem::new)?;
    let what = format!("the output of the command {program:?}");
    if bytes.len() as u64 > LONGEST {
        return Err(Problem::new(format!("{what} is larger than 64 KiB, so it is not a key")));
    }
    let text = String::from_utf8(bytes).map_err(|_| Problem::new(format!("{what} is not UTF-8 text")))?;
    trimmed(&text, &what)
}

fn trimmed(text: &str, what: &str) -> Result<SecretString, Problem> {
    // Some editors begin every UTF-8 file with a byte order mark.
    match text.strip_prefix('\u{feff}').unwrap_or(text).trim_end_matches(['\r', '\n']) {
        "" => Err(Problem::new(format!("the secret in {what} is empty"))),
        secret if secret.contains(['\r', '\n']) => {
            Err(Problem::new(format!("the secret in {what} has several lines; a key has one")))
        }
        secret if secret.contains('\0') => Err(Problem::new(format!(
            "the secret in {what} contains NUL characters, as UTF-16 text does; save it as UTF-8"
        ))),
        secret => Ok(secret.into()),
    }
}
